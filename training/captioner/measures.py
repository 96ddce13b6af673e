"""How good captions are: beside their references of held-out clips, and token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dailies.training.captioner.attributes import accuracy
from dailies.training.captioner.cider import cider_d


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionQuality:
    """Says what a captioner is worth on held-out clips.

    ``loss``: cross-entropy of the references' tokens, in nats a token. ``token_accuracy``: the share of them that is the
    likeliest one after the true ones before it. ``cider_d``: 0–10, mean over clips. ``chrf``: 0–100, over all clips.
    ``colors``, ``shapes``, ``motion``: shares of clips whose caption names exactly those of its reference, ``None`` where
    references are not of the rendered world. ``clips``: held-out clips that it is measured on.
    """

    loss: float
    token_accuracy: float
    cider_d: float
    chrf: float
    colors: float | None = None
    shapes: float | None = None
    motion: float | None = None
    clips: int

    def figures(self) -> dict[str, float]:
        """Return what is measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "clips"}


def quality(
    captions: Sequence[str], references: Sequence[str], *, loss: float, correct: float, tokens: float
) -> CaptionQuality:
    """Measure ``captions``, each against the one reference at its place.

    Args:
        loss: summed over the references' tokens, in nats.
        correct: how many of these ``tokens`` are guessed right.
    """
    scores = cider_d(captions, references)
    return CaptionQuality(
        loss=loss / tokens,
        token_accuracy=correct / tokens,
        cider_d=sum(scores) / len(scores),
        chrf=chrf(captions, references),
        clips=len(captions),
        **(accuracy(captions, references) or {}),
    )


def chrf(captions: Sequence[str], references: Sequence[str]) -> float:
    """Return sacrebleu's chrF (Popović 2015) over all captions together, 0–100."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(captions), [list(references)]).score)


def shown(figures: Mapping[str, Any]) -> str:
    """Put what ``CaptionQuality.figures`` returns into words."""
    parts = [
        f"loss {figures['loss']:.3f}",
        f"tokens {figures['token_accuracy']:.1%}",
        f"CIDEr-D {figures['cider_d']:.2f}",
        f"chrF {figures['chrf']:.1f}",
        *(f"{name} {figures[name]:.0%}" for name in ("colors", "shapes", "motion") if figures.get(name) is not None),
    ]
    return ", ".join(parts)
