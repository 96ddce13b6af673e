"""Two captioners of one dataset beside each other: lengths, vocabulary, what came of their captions, where each fits better."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, lgamma
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.caption_measures import chrf, split_words
from dailies.curation.config import offered
from dailies.curation.duplicates import caption_groups
from dailies.curation.errors import UsageError
from dailies.curation.scorers import ClipScorer
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes import CaptionStep, CurationRecipe, ScoreStep, caption_name
from dailies.pipelines.selecting import last_recipe

COMPARED = 10_000
"""Clips at most that the mean likeness is of: those drawn first."""
WINS = 3
ALIKE = 0.8  # share of words and pairs of words that two captions have in common to be nearly the same, as in dedup


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerFigures:
    """What one captioner wrote.

    ``statuses``: clips by what came of their caption; ``flags``: captions by what speaks against them; ``texts``: captions
    that are there. ``mean_length``, ``median_length``, ``longest``: in words. ``vocabulary``: distinct words, and
    ``type_token_ratio`` their share among as many words as the captioner that wrote fewer has, expected over all draws.
    ``alike``: captions that another clip has too, or nearly so. ``similarity``: mean CLIP similarity over the clips where
    both have one, and ``wins`` how many of these it fits better; None where the recipe measures it not for both.
    """

    name: str
    statuses: Mapping[str, int]
    flags: Mapping[str, int]
    texts: int
    mean_length: float | None
    median_length: float | None
    longest: int | None
    vocabulary: int
    type_token_ratio: float | None
    alike: int
    similarity: float | None
    wins: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionPair:
    """Both captions of a clip; ``similarity_a`` and ``similarity_b``: by CLIP; ``likeness``: chrF of both, 0 to 1."""

    clip_id: str
    a: str
    b: str
    likeness: float
    similarity_a: float | None = None
    similarity_b: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionComparison:
    """Two captioners of a dataset.

    ``both``: clips with a caption by each; of these ``compared`` give the mean ``likeness`` (chrF with β = 1, 0 to 1), and
    ``same`` have the same text twice. ``ties``: clips that both fit equally well. ``samples``: drawn by ``seed``;
    ``a_fits_better`` and ``b_fits_better``: where the difference of similarities is greatest.
    """

    a: CaptionerFigures
    b: CaptionerFigures
    both: int
    same: int
    compared: int
    likeness: float | None
    ties: int | None
    seed: int
    samples: tuple[CaptionPair, ...]
    a_fits_better: tuple[CaptionPair, ...]
    b_fits_better: tuple[CaptionPair, ...]


def compare_captions(url: str, a: str, b: str, *, samples: int = 6, seed: int = 0) -> CaptionComparison:
    """Compare the captions of the steps ``a`` and ``b`` of the dataset's last recipe, with or without caption_ before them.

    ``samples``: how many clips are drawn to be shown, by ``seed``. Raises ``UsageError`` for a captioner that there is not.
    """
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, ())
    steps = [_step(recipe, name) for name in (a, b)]
    if steps[0] is steps[1]:
        raise UsageError(f"{b}: the same captioner twice; name another")
    rows = [_rows(dataset, recipe, step) for step in steps]
    texts = [_texts(table) for table in rows]
    both = sorted(texts[0].keys() & texts[1].keys())
    cosines = [_similarities(dataset, recipe, step) for step in steps]
    measured = [each for each in both if all(column.get(each) is not None for column in cosines)]
    fitting = None if None in (_clip_step(recipe, step) for step in steps) else measured
    drawn = random.Random(seed).sample(both, min(len(both), COMPARED))
    counts = [Counter(token for text in each.values() for token in split_words(text)) for each in texts]
    size = min(count.total() for count in counts)

    def pair(clip_id: str) -> CaptionPair:
        first, second = (each[clip_id] for each in texts)
        return CaptionPair(
            clip_id=clip_id,
            a=first,
            b=second,
            likeness=chrf(first, second),
            similarity_a=cosines[0].get(clip_id),
            similarity_b=cosines[1].get(clip_id),
        )

    margins = {each: cosines[0][each] - cosines[1][each] for each in measured}
    ahead = sorted(measured, key=lambda each: (-margins[each], each))
    wins = [[each for each in order if margins[each] * sign > 0] for order, sign in ((ahead, 1), (ahead[::-1], -1))]
    figures = [
        _figures(step, table, each, count, size, [cosine[clip] for clip in measured], len(won), fitting is not None)
        for step, table, each, count, cosine, won in zip(steps, rows, texts, counts, cosines, wins, strict=True)
    ]
    return CaptionComparison(
        a=figures[0],
        b=figures[1],
        both=len(both),
        same=sum(texts[0][each] == texts[1][each] for each in both),
        compared=len(drawn),
        likeness=fmean(chrf(texts[0][each], texts[1][each]) for each in drawn) if drawn else None,
        ties=None if fitting is None else len(measured) - len(wins[0]) - len(wins[1]),
        seed=seed,
        samples=tuple(pair(each) for each in drawn[:samples]),
        a_fits_better=tuple(pair(each) for each in wins[0][:WINS]),
        b_fits_better=tuple(pair(each) for each in wins[1][:WINS]),
    )


def _step(recipe: CurationRecipe, name: str) -> CaptionStep:
    captioners = {step.name: step for step in recipe.steps if isinstance(step, CaptionStep)}
    known = captioners.get(caption_name(name))
    if known is None:
        short = [each.removeprefix("caption_") for each in captioners]
        raise UsageError(f"{name}: no captioner of the last run{offered(name, short) or '; its recipe has none'}")
    return known


def _rows(dataset: DatasetTables, recipe: CurationRecipe, step: CaptionStep) -> pa.Table:
    """Return ``clip_id``, ``status``, ``text`` and ``flags`` of a captioner; tables of before there were flags have none."""
    table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
    there = [name for name in ("clip_id", "status", "text", "flags") if name in table.schema.names]
    return table.read(there)


def _texts(rows: pa.Table) -> dict[str, str]:
    pairs = zip(rows["clip_id"].to_pylist(), rows["text"].to_pylist(), strict=True)
    return {clip: text for clip, text in pairs if text and text.strip()}


def _clip_step(recipe: CurationRecipe, step: CaptionStep) -> ScoreStep | None:
    """Return the step that measures the CLIP similarity of a captioner's captions, the last one of several."""
    steps = [
        each
        for each in recipe.steps
        if isinstance(each, ScoreStep)
        and isinstance(each.scorer, ClipScorer)
        and each.scorer.caption == step.name
        and not each.scorer.prompts
    ]
    return steps[-1] if steps else None


def _similarities(dataset: DatasetTables, recipe: CurationRecipe, step: CaptionStep) -> dict[str, float]:
    scored = _clip_step(recipe, step)
    if scored is None:
        return {}
    table = dataset.table(recipe.annotations(scored), schema.scores(scored.spec.columns))
    rows = table.read(["clip_id", "clip_similarity"])
    rows = rows.filter(pc.is_valid(rows["clip_similarity"]))
    return dict(zip(rows["clip_id"].to_pylist(), rows["clip_similarity"].to_pylist(), strict=True))


def _figures(
    step: CaptionStep,
    rows: pa.Table,
    texts: Mapping[str, str],
    counts: Counter[str],
    size: int,
    cosines: Sequence[float],
    wins: int,
    fitted: bool,
) -> CaptionerFigures:
    lengths = [len(split_words(text)) for text in texts.values()]
    groups = Counter(caption_groups(list(texts.values()), ALIKE).tolist())
    flags = rows["flags"].drop_null().to_pylist() if "flags" in rows.column_names else []
    return CaptionerFigures(
        name=step.name.removeprefix("caption_"),
        statuses=_most_first(Counter(rows["status"].to_pylist())),
        flags=_most_first(Counter(flag for each in flags for flag in each.split(","))),
        texts=len(texts),
        mean_length=fmean(lengths) if lengths else None,
        median_length=median(lengths) if lengths else None,
        longest=max(lengths, default=None),
        vocabulary=len(counts),
        type_token_ratio=expected_distinct(counts, size) / size if size else None,
        alike=sum(count for group, count in groups.items() if group >= 0 and count > 1),
        similarity=fmean(cosines) if fitted and cosines else None,
        wins=wins if fitted else None,
    )


def _most_first(counts: Counter[Any]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def expected_distinct(counts: Mapping[str, int], size: int) -> float:
    """Return how many distinct words ``size`` words have that are drawn without putting back, expected (Hurlbert 1971).

    Σ over words of 1 - C(N - f, n) / C(N, n), where f is how often a word is among all N.
    """
    total = sum(counts.values())
    frequencies = Counter(counts.values())

    def missed(often: int) -> float:
        if total - often < size:
            return 0.0
        left, out = (
            lgamma(total - often + 1) - lgamma(total - often - size + 1),
            lgamma(total + 1) - lgamma(total - size + 1),
        )
        return exp(left - out)

    return sum(kinds * (1 - missed(often)) for often, kinds in frequencies.items())
