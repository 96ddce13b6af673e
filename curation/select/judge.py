"""Clips are judged here: the tables are joined once, rules become conditions, and verdicts stream out, sorted by clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from dailies.curation import schema
from dailies.curation.select.conditions import Fall, rule_falls, status_falls
from dailies.curation.select.copies import drop_copies, drop_overlapping
from dailies.curation.select.draws import Drop, draw
from dailies.curation.select.facts import FACTS, Facts, Unjudged, gather
from dailies.curation.select.rules import Balance, Cap, ClipSample, Criteria, Rule
from dailies.curation.select.source import ClipRows, read_batches

T = TypeVar("T")

MEMORY = 5 << 29
"""Bytes that DuckDB may hold; what is more goes to the disk. Arrow's batches and Python come on top, about half of that."""

PART_ROWS = 1 << 19
"""Rows of a table of verdicts, and so of a part."""

MASK_BITS = 62
"""Reasons that a whole number has room for."""


@dataclass(slots=True, kw_only=True)
class Judgement:
    """What a selection comes to.

    ``limits``: by rule, the numbers that it resolved to; so of caps, balance and sample. ``clips``, ``kept``,
    ``kept_seconds`` and ``reasons`` (how many fell, by their first reason) are counted while ``verdicts`` are read.
    """

    facts: Facts
    asked: Sequence[Fall | Drop]
    limits: dict[str, Any]
    clips: int = 0
    kept: int = 0
    kept_seconds: float = 0.0
    _fallen: Counter[int] = field(default_factory=Counter)

    @property
    def reasons(self) -> dict[str, int]:
        return {self.asked[number].reason: count for number, count in sorted(self._fallen.items(), key=_most_first)}

    def verdicts(self) -> Iterator[pa.Table]:
        """Yield rows of ``schema.SELECTIONS``, sorted by clip over all of them, ``PART_ROWS`` at a time."""
        waiting: list[pa.Table] = []
        for batch in _ahead(read_batches(self.facts.connection, self._sql())):
            waiting.append(self._verdicts(batch))
            if sum(map(len, waiting)) >= PART_ROWS:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def masks(self) -> str:
        """Return SQL of whole numbers, whose bits say by which of ``asked`` a row of ``facts`` falls: ``mask_0``, ….

        It is to be selected from ``joined``.
        """
        bits = [
            f"(({each.sql if isinstance(each, Fall) else f'{each.table}.fact is not null'})::bigint << {number % MASK_BITS})"
            for number, each in enumerate(self.asked)
        ]
        groups = [bits[start : start + MASK_BITS] for start in range(0, max(1, len(bits)), MASK_BITS)]
        return ", ".join(f"{' + '.join(group) or '0'} as mask_{number}" for number, group in enumerate(groups))

    def mask_names(self) -> str:
        """Return the names of ``masks``."""
        return ", ".join(f"mask_{number}" for number in range(max(1, -(-len(self.asked) // MASK_BITS))))

    @property
    def joined(self) -> str:
        """SQL of ``facts`` with the tables of those that fell."""
        tables = [each.table for each in self.asked if isinstance(each, Drop)]
        return " ".join([FACTS, *(f"left join {table} on {table}.fact = {FACTS}.rowid" for table in tables)])

    def _sql(self) -> str:
        seconds = "seconds" if "seconds" in self.facts.columns else "null::double"
        return f"select clip_id, source_id, split, {seconds} as seconds, {self.masks()} from {self.joined} order by clip_id"

    def _verdicts(self, batch: pa.RecordBatch) -> pa.Table:
        """Return verdicts, and count them. Rows that fell by the same reasons, of which there are few kinds, share them."""
        names = [name for name in batch.schema.names if name.startswith("mask_")]
        masks = np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in names], axis=1)
        kinds, which = np.unique(masks, axis=0 if len(names) > 1 else None, return_inverse=True)
        which = which.reshape(-1)
        fell = [self._fell(np.atleast_1d(kind)) for kind in kinds]
        reasons = [[self.asked[number].reason for number in numbers] for numbers in fell]
        for numbers, count in zip(fell, np.bincount(which, minlength=len(fell)), strict=True):
            if numbers:
                self._fallen[numbers[0]] += int(count)
        keep = np.asarray([not numbers for numbers in fell], dtype=bool)[which]
        self.clips += len(keep)
        self.kept += int(keep.sum())
        self.kept_seconds += float(np.nansum(batch.column("seconds").to_numpy(zero_copy_only=False)[keep]))
        at = pa.array(which)
        columns = {
            **{name: batch.column(name) for name in ("clip_id", "source_id", "split")},
            "keep": pa.array(keep),
            "reason": pa.array([each[0] if each else None for each in reasons], pa.string()).take(at),
            "reasons": pa.array(reasons, schema.SELECTIONS.field("reasons").type).take(at),
        }
        return pa.table(columns, schema=schema.SELECTIONS)

    def _fell(self, masks: Any) -> list[int]:
        """Return by which of ``asked`` rows with these masks fall."""
        return [
            number for number in range(len(self.asked)) if int(masks[number // MASK_BITS]) >> (number % MASK_BITS) & 1
        ]


def _most_first(item: tuple[int, int]) -> tuple[int, int]:
    return -item[1], item[0]


@contextmanager
def judging(
    clips: ClipRows,
    criteria: Criteria,
    *,
    scores: Sequence[ClipRows] = (),
    unjudged: Mapping[str, Unjudged] = {},
    readable: Callable[[str], bool] | None = None,
    moved: pa.Table | None = None,
    memory: int = MEMORY,
) -> Iterator[Judgement]:
    """Judge every clip, out of core: what does not fit into ``memory`` (bytes) goes to a temporary folder.

    Args:
        clips: rows with the columns of ``schema.CLIP_COLUMNS``.
        scores: further columns by ``clip_id``; a clip without a row has no values.
        unjudged: by column, sources whose clips no rule over it drops, or counts in its quantiles.
        readable: whether a source can be read, asked of copies alone, of which one that can stays. None: all can.
        moved: ``source_id`` and ``uri`` of sources that lie elsewhere than ``clips`` says.

    Raises ``UsageError`` when a column is null for some clips and its rule does not say what that means, or is of another
    type than what is asked of it.
    """
    from dailies.curation.tables import confined  # DuckDB, which recipes alone have no need of

    files = [path for source in (clips, *scores) for path in source.files()]
    with confined(memory=memory, files=files) as connection:
        facts = gather(connection, clips, scores, criteria, unjudged)
        drops = []
        if criteria.duplicates == "drop":
            drop_copies(connection, clips, "copies", readable, moved)
            drops.append(Drop(reason="duplicate", table="copies"))
        if criteria.overlaps == "drop":
            drop_overlapping(connection, clips, "overlapping")
            drops.append(Drop(reason="overlapping", table="overlapping"))
        falls, limits = rule_falls(facts, criteria.rules, unjudged)
        drawn, further = draw(facts, criteria, falls, drops)
        yield Judgement(facts=facts, asked=[*status_falls(), *drops, *falls, *drawn], limits=limits | further)


def select(
    clips: pa.Table,
    rules: Mapping[str, Rule],
    *,
    unjudged: Mapping[str, Unjudged] = {},
    duplicates: Literal["drop", "keep"] = "drop",
    overlaps: Literal["drop", "keep"] = "drop",
    at_most: Mapping[str, Cap] = {},
    balance: Balance | None = None,
    sample: ClipSample | None = None,
    readable: Callable[[str], bool] | None = None,
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """Judge every clip of a table in memory.

    ``clips``: one row per clip with the columns of ``schema.CLIP_COLUMNS`` and whatever the rules name. Returns verdicts
    (``schema.SELECTIONS``, sorted by clip_id) and per rule the limits that it came to. ``unjudged``: by column,
    sources whose clips its rule neither drops nor counts in its quantiles; its limits say of how many, as ``not_applied``.

    Reasons are stable words, given in the order in which clips are asked: ``failed``, ``too_short``; ``duplicate``,
    ``overlapping`` (shares frames with a manifest's span of its source: an earlier one, or any for a shot);
    ``motion_low``, ``text_area_high``, ``license_other``, ``motion_missing``, ``NAME_unmet`` (of expressions, ``all`` and
    ``any``); ``source_id_cap``; ``balance``; ``sample``. Raises as ``judging`` does.
    """
    criteria = Criteria(
        duplicates=duplicates, overlaps=overlaps, rules=rules, at_most=at_most, balance=balance, sample=sample
    )
    with judging(ClipRows(rows=clips), criteria, unjudged=unjudged, readable=readable) as judged:
        tables = list(judged.verdicts())
        return pa.concat_tables([schema.SELECTIONS.empty_table(), *tables]), judged.limits


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield ``items``, of which the next is made while one is in use."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item
