"""The funnel: how many clips, and seconds of them, each reason drops, in the order in which the rules were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.select import UNUSABLE
from dailies.curation.tables import DatasetTables
from dailies.pipelines.overview import sources_held
from dailies.pipelines.recipes import CurationRecipe
from dailies.pipelines.report.data import Amount, Funnel, FunnelStep, SourceCounts
from dailies.pipelines.report.judged import BETWEEN, JudgedClips, bare_clips, judged, selection_named
from dailies.pipelines.reports import broken_limit
from dailies.pipelines.selecting import last_recipe

DRAWS = ("at_most", "balance", "sample")
"""What stands among the rules of a selection, and looks at what else is kept."""

BEFORE_RULES = (*UNUSABLE, "duplicate", "overlapping")


def stats(url: str, *, selection: str | None = None) -> Funnel:
    """Return the funnel of the dataset at ``url``: reads verdicts and lengths, and no pictures.

    ``selection``: whose; by default the last of the last run's recipe. Raises ``UsageError`` for one that there is not.
    """
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, ())
    name = selection_named(dataset, recipe, selection)
    return funnel(dataset, recipe, judged(dataset, bare_clips(dataset, recipe), name))


def funnel(dataset: DatasetTables, recipe: CurationRecipe, clips: JudgedClips) -> Funnel:
    """Return the funnel of these verdicts."""
    counts = sources_held(dataset, recipe)
    sources = SourceCounts(ok=counts.ok, seconds=counts.seconds, failed=counts.failed, withdrawn=counts.withdrawn)
    ways = _ways(clips)
    total = sum(ways.values(), Amount())
    order = reason_order(ways, clips.properties.get("rules") or {})
    left, steps = total, []
    for reason in order:
        dropped = _sum(amount for why, amount in ways.items() if why and why[0] == reason)
        left = left - dropped
        steps.append(
            FunnelStep(
                reason=reason,
                limit=broken_limit(reason, clips.limits),
                dropped=dropped,
                fell=_sum(amount for why, amount in ways.items() if reason in why),
                alone=ways.get((reason,), Amount()),
                left=left,
            )
        )
    kept = ways.get((), Amount())
    return Funnel(
        dataset=dataset.url, selection=clips.selection, sources=sources, clips=total, steps=tuple(steps), kept=kept
    )


def _ways(clips: JudgedClips) -> dict[tuple[str, ...], Amount]:
    """Return how much there is of each combination of reasons: a handful of rows, however many clips there are."""
    rows = clips.rows
    if clips.selection is None:
        why = pc.if_else(pc.equal(rows["status"], "ok"), "", rows["status"])
    else:  # a clip that was cut since has no verdict
        new = pc.if_else(pc.equal(rows["status"], "ok"), "not_judged", rows["status"])
        known = pc.if_else(pc.and_(pc.equal(rows["why"], ""), pc.invert(rows["keep"])), "dropped", rows["why"])
        why = pc.if_else(pc.is_null(rows["keep"]), new, known)
    table = pa.table({"why": why, "seconds": pc.fill_null(rows["seconds"], 0.0)})
    sums = table.group_by("why").aggregate([([], "count_all"), ("seconds", "sum")]).to_pylist()
    return {
        tuple(filter(None, row["why"].split(BETWEEN))): Amount(clips=row["count_all"], seconds=row["seconds_sum"])
        for row in sums
    }


def _sum(amounts: Iterable[Amount]) -> Amount:
    return sum(amounts, Amount())


def reason_order(ways: Iterable[Sequence[str]], rules: Mapping[str, Any]) -> list[str]:
    """Return the reasons in the order in which the selection asked: each clip lists its own in that order.

    Where no clip fell by two of them, the order of ``rules`` decides, whose names a reason begins with. Caps, balance and
    sample come last: see ``SelectStep``.
    """
    after: dict[str, set[str]] = {}
    for why in ways:
        for number, reason in enumerate(why):
            after.setdefault(reason, set()).update(why[:number])
    columns = [name.replace(".", "_") for name in rules if name not in DRAWS]
    drawn = [*(f"{column.replace('.', '_')}_cap" for column in rules.get("at_most") or ()), "balance", "sample"]

    def rank(reason: str) -> tuple[int, int, str]:
        if reason in BEFORE_RULES:
            return 0, BEFORE_RULES.index(reason), reason
        if reason in drawn:
            return 2, drawn.index(reason), reason
        named = [at for at, word in enumerate(columns) if reason == word or reason.startswith(f"{word}_")]
        best = max(named, key=lambda at: len(columns[at]), default=len(columns))  # the longest name that fits
        return 1, best, reason

    order: list[str] = []
    left = sorted(after, key=rank)
    while left:
        ready = next((reason for reason in left if not after[reason] - set(order)), left[0])
        order.append(ready)
        left.remove(ready)
    return order
