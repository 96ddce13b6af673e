"""Every clip of a dataset with its numbers and what a selection says of it: what all parts of a report are counted from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dailies.curation import schema
from dailies.curation.config import did_you_mean
from dailies.curation.errors import UsageError
from dailies.curation.select import column_values, columns_read, computed_values
from dailies.curation.tables import DatasetTables
from dailies.pipelines.footage import WorldOnly, other_footage
from dailies.pipelines.recipes import CurationRecipe, SelectStep
from dailies.pipelines.selecting import clips_table

BETWEEN = "\x1f"  # of reasons: names of columns, which they begin with, may hold a comma


@dataclass(frozen=True, slots=True)
class JudgedClips:
    """Rows of clips in the order of their ids, with ``keep`` (null without a selection) and ``why``, their reasons as one text.

    ``limits`` and ``properties``: of the selection. ``apart``: by column, the sources whose clips no rule over it is asked
    about, see ``WorldOnly``.
    """

    rows: pa.Table
    selection: str | None
    limits: Mapping[str, Any]
    properties: Mapping[str, Any]
    apart: Mapping[str, pa.Array] = field(default_factory=dict)
    _parsed: dict[str, pa.ChunkedArray] = field(default_factory=dict, init=False, repr=False, compare=False)
    _computed: dict[str, pa.ChunkedArray | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def limited(self) -> list[str]:
        """What rules are over, in their order: columns, and by its rule's name what is computed of them.

        What must be true, and ``all`` and ``any``, is none.
        """
        return [name for name, limit in self.limits.items() if isinstance(limit, Mapping) and "holds" not in limit]

    def expression(self, name: str) -> str | None:
        """Return what the rule of this name computes, None where it is over a column."""
        limit = self.limits.get(name)
        text = limit.get("expression") if isinstance(limit, Mapping) else None
        return text if isinstance(text, str) else None

    @property
    def usable(self) -> NDArray[np.bool_]:
        return flags(pc.equal(self.rows["status"], "ok"))

    @property
    def keep(self) -> NDArray[np.bool_]:
        """Clips that are kept; without a selection all that are usable."""
        return self.usable if self.selection is None else flags(self.rows["keep"])

    @property
    def seconds(self) -> NDArray[np.float64]:
        seconds = numbers(self.rows["seconds"], 0.0)
        return np.where(np.isfinite(seconds), seconds, 0.0)

    def asked(self, column: str) -> NDArray[np.bool_]:
        """Clips that a rule over this column is asked about, if they are usable."""
        if column not in self.apart:
            return np.ones(len(self.rows), dtype=bool)
        return ~flags(pc.is_in(self.rows["source_id"], value_set=self.apart[column]))

    def only(self, reason: str) -> NDArray[np.bool_]:
        """Clips that fell by this reason and no other."""
        return flags(pc.equal(self.rows["why"], reason))

    def fell(self, reason: str) -> NDArray[np.bool_]:
        """Clips that fell by this reason, whatever else they fell by."""
        padded = pc.binary_join_element_wise("", self.rows["why"], "", BETWEEN)
        return flags(pc.match_substring(padded, f"{BETWEEN}{reason}{BETWEEN}"))

    def read_by(self, name: str) -> tuple[str, ...]:
        """Return the columns that the rule of this name is over."""
        expression = self.expression(name)
        return (name,) if expression is None else columns_read(expression)

    def column(self, name: str) -> pa.ChunkedArray | None:
        """Return a column, or what a rule computes, by the name that rules call it; None where there is none."""
        expression = self.expression(name)
        if expression is not None:
            return self.computed(expression)
        if name.startswith("manifest."):
            if name not in self._parsed:  # clips of one source share a manifest: each is parsed once
                texts = pc.unique(self.rows["manifest"])
                values = column_values(pa.table({"manifest": texts}), name)
                self._parsed[name] = values.take(pc.index_in(self.rows["manifest"], value_set=texts))
            return self._parsed[name]
        return self.rows[name] if name in self.rows.column_names else None

    def computed(self, expression: str) -> pa.ChunkedArray | None:
        """Return what an expression comes to; None where the dataset has other columns now than those it was for."""
        if expression not in self._computed:
            self._computed[expression] = None
            with suppress(ValueError):
                columns = {name: self.column(name) for name in columns_read(expression)}
                there = {name: values for name, values in columns.items() if values is not None}
                if len(there) == len(columns):
                    self._computed[expression] = computed_values(pa.table(there), expression)
        return self._computed[expression]


def flags(values: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    """Return booleans with null as false."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), dtype=bool)


def numbers(values: pa.ChunkedArray, missing: float = float("nan")) -> NDArray[np.float64]:
    """Return numbers with null as ``missing``."""
    floats = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isnan(floats), missing, floats)


def selection_named(dataset: DatasetTables, recipe: CurationRecipe, name: str | None) -> str | None:
    """Return the selection to report on: ``name``, else the last of the recipe's that was made; None where there is none.

    Raises ``UsageError`` for a name that no selection has.
    """
    there = selections(dataset)
    if name is not None and name not in there:
        raise UsageError(
            f"--selection={name}: no such selection; there are {', '.join(there) or 'none'}{did_you_mean(name, there)}"
        )
    ours = [step.name for step in recipe.steps if isinstance(step, SelectStep) and step.name in there]
    return name or next(iter([*reversed(ours), *there]), None)


def selections(dataset: DatasetTables) -> list[str]:
    """Return the names of the selections that were made."""
    return [name.removeprefix("selections/") for name in dataset.tables() if name.startswith("selections/")]


def bare_clips(dataset: DatasetTables, recipe: CurationRecipe) -> pa.Table:
    """Return all clips with no more than a funnel needs: ``clip_id``, ``status`` and ``seconds``."""
    rows: pa.Table = clips_table(dataset, recipe).read(["clip_id", "status", "seconds"])
    return rows


def not_asked(dataset: DatasetTables, recipe: CurationRecipe, clips: JudgedClips) -> dict[str, pa.Array]:
    """Return by column the sources whose clips the selection did not ask its rule about; see ``JudgedClips.apart``."""
    columns = [name for name in clips.limited if clips.limits[name].get("not_applied")]
    if not columns:
        return {}
    known = WorldOnly.of(recipe).scores
    other = other_footage(dataset, recipe)
    return {name: other for name in columns if known.keys() & set(clips.read_by(name))}


def judged(dataset: DatasetTables, clips: pa.Table, selection: str | None) -> JudgedClips:
    """Return ``clips`` with what the selection says of each; clips that it does not know have no verdict."""
    clips = clips.sort_by("clip_id")
    if selection is None:
        nothing = [pa.nulls(len(clips), pa.bool_()), pa.repeat(pa.scalar(""), len(clips))]
        clips = clips.append_column("keep", nothing[0]).append_column("why", nothing[1])
        return JudgedClips(clips, None, {}, {})
    table = dataset.table(f"selections/{selection}", schema.SELECTIONS)
    rows = table.read(["clip_id", "keep", "reasons"])
    at = pc.index_in(clips["clip_id"], value_set=rows["clip_id"].combine_chunks())
    why = pc.fill_null(pc.binary_join(rows["reasons"].combine_chunks(), BETWEEN), "")
    clips = clips.append_column("keep", pc.take(rows["keep"], at))
    clips = clips.append_column("why", pc.fill_null(pc.take(why, at), ""))
    properties = table.properties()
    limits = properties.get("limits", {})
    return JudgedClips(clips, selection, limits if isinstance(limits, dict) else {}, properties)
