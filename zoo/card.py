"""The card of a published model: README.md, for people first, with a front matter that hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.curation import cards
from dailies.zoo.entry import ZooEntry
from dailies.zoo.pipelines import PIPELINES
from dailies.zoo.provenance import ClipOrigin, SourceExport
from dailies.zoo.run_record import PhaseRecord, RunRecord
from dailies.zoo.units import DASH, count, duration, megabytes

CARD = "README.md"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """The facts that a card tells.

    Args:
        clips: clip id → where it lies.
        pictures: phase → file in the model's folder.
        parts: component → (parameters, bytes).
    """

    entry: ZooEntry
    run: RunRecord
    phase: PhaseRecord
    export: SourceExport
    clips: Mapping[str, ClipOrigin]
    pictures: Mapping[str, str]
    parts: Mapping[str, tuple[int, int]]


def card(facts: CardFacts) -> str:
    """Return README.md of a published model, whose entry names a pipeline."""
    from huggingface_hub import ModelCardData

    entry = facts.entry
    data = ModelCardData(
        license=entry.licence or "unknown",
        pipeline_tag=entry.task,
        library_name="diffusers",
        tags=["video", "dailies"],
    )
    return cards.render(
        TEMPLATES / "model_card.md.j2",
        data,
        entry=entry,
        run=facts.run,
        phase=facts.phase,
        export=facts.export,
        pictures=facts.pictures,
        input=PIPELINES[str(entry.pipeline)].input,
        width_height=entry.size or (1024, 576),
        averaged=entry.sources.weights == "ema",
        phase_rows=[_phase_row(phase, facts.phase) for phase in facts.run.phases],
        captions=_captions(facts),
        rule_rows=_rule_rows(facts.export),
        clip_rows=_clip_rows(facts),
        part_rows=[(name, count(weights), megabytes(size)) for name, (weights, size) in facts.parts.items()],
        clips_seen=max((phase.clips or 0 for phase in facts.run.phases), default=0),
        parameters=count(entry.parameters),
        size=megabytes(entry.bytes),
    )


def _phase_row(phase: PhaseRecord, published: PhaseRecord) -> list[str]:
    name = cards.inline(phase.name)
    first, last = (phase.validation[0], phase.validation[-1]) if phase.validation else (None, None)
    return [
        cards.Markdown(f"**{name}** ← this model") if phase is published else name,
        phase.task,
        f"{phase.size[0]}×{phase.size[1]}" + (f" × {phase.frames}" if phase.frames > 1 else ""),
        DASH if phase.clips is None else f"{phase.clips:,}",
        f"{phase.steps:,}" if phase.done else f"{phase.steps:,}, not done",
        duration(phase.seconds),
        _loss(first),
        _loss(last),
    ]


def _loss(pair: tuple[int, float] | None) -> str:
    return DASH if pair is None else f"{pair[1]:.4g} ({pair[0]:,})"


def _captions(facts: CardFacts) -> Mapping[str, Mapping[str, Any]]:
    """Return who wrote the captions that the run read, by column."""
    told = facts.run.recipe.get("caption")
    columns = (
        [told] if isinstance(told, str) else [pair[0] for pair in told or () if isinstance(pair, list | tuple) and pair]
    )
    captions = {name: maker for name, maker in facts.export.captions.items() if isinstance(maker, Mapping)}
    return {name: maker for name, maker in captions.items() if name in columns}


def _rule_rows(export: SourceExport) -> list[tuple[str, str, str]]:
    """Column, its rule, and the limit that the rule came to."""
    columns = dict.fromkeys([*export.rules, *export.limits])
    return [(column, _terms(export.rules.get(column)), _terms(export.limits.get(column))) for column in columns]


def _terms(rule: Any) -> str:
    if not isinstance(rule, dict):
        return DASH if rule is None else cards.code(json.dumps(rule))
    terms = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in rule.items()
        if value is not None
    ]
    return ", ".join(terms) or DASH


def _clip_rows(facts: CardFacts) -> list[tuple[str, str, str | None, str]]:
    """Return the first clips that each phase was shown: id, phases, source, and span."""
    phases: dict[str, list[str]] = {}
    for phase in facts.run.phases:
        for clip_id in phase.first_clip_ids:
            phases.setdefault(clip_id, []).append(phase.name)
    rows = []
    for clip_id, names in phases.items():
        clip = facts.clips.get(clip_id) or ClipOrigin(clip_id=clip_id)
        span = DASH
        if clip.start is not None and clip.seconds is not None:
            span = f"{clip.start:.2f} s + {clip.seconds:.2f} s"
        rows.append((clip_id, ", ".join(names), clip.uri, span))
    return rows
