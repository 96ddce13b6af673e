"""Captioners beside each other: what came of their captions, what speaks against them, and how long they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dailies.pipelines.report import scores
from dailies.pipelines.report.data import CaptionerPart
from dailies.pipelines.report.judged import JudgedClips, flags

WORST = 8
"""Statuses and flags at most that are told of a captioner: one's own may write any."""


def captioners(clips: JudgedClips, captions: Sequence[str]) -> tuple[CaptionerPart, ...]:
    """Return the captioners of the usable clips, where there are two or more: their histograms share an axis."""
    if len(captions) < 2:
        return ()
    lengths = {name: scores.words_in(clips.rows[name]) for name in captions}
    known = np.concatenate([values[clips.usable & np.isfinite(values)] for values in lengths.values()])
    parts = []
    for name in captions:
        short = name.removeprefix("caption_")
        flagged = _values(clips, f"flags_{short}")
        parts.append(
            CaptionerPart(
                column=name,
                texts=int((clips.usable & np.isfinite(lengths[name])).sum()),
                usable=int(clips.usable.sum()),
                statuses=_counted(_values(clips, f"status_{short}")),
                flagged=len(flagged),
                flags=_counted([flag for each in flagged for flag in each.split(",")]),
                lengths=scores.plain(clips, name, "length of a caption", "words", lengths[name], known),
            )
        )
    return tuple(parts)


def states_of(captions: Sequence[str]) -> list[str]:
    """Return the columns that ``captioners`` counts, so that nobody charts them again."""
    return [f"{kind}_{name.removeprefix('caption_')}" for name in captions for kind in ("status", "flags")]


def _values(clips: JudgedClips, column: str) -> list[str]:
    """Return the values of a column of texts over the usable clips; none where there is no such column."""
    if column not in clips.rows.column_names:
        return []
    rows = clips.rows[column].filter(pa.array(clips.usable))
    return [str(value) for value in rows.filter(pa.array(flags(pc.is_valid(rows)))).to_pylist()]


def _counted(values: Sequence[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:WORST])
