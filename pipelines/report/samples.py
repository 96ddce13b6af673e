"""Which clips a report shows, and their frames: the evidence that was stored when their sources were observed, made small.

Nothing is decoded from a source, which may be gone. Of a large dataset only the parts that hold these clips are read.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dailies.curation import pictures, schema
from dailies.curation.addresses import name_of, scrub
from dailies.curation.contact_sheet import spread
from dailies.curation.errors import SourceError
from dailies.curation.plain_text import one_line, shortened
from dailies.curation.tables import DatasetTables, Table, read_part, with_places
from dailies.pipelines.recipes import CurationRecipe
from dailies.pipelines.report.data import AlikeClips, Beside, Clip, ClipNote, Duplicates, FunnelStep, Picture
from dailies.pipelines.report.judged import BETWEEN, JudgedClips, flags, numbers
from dailies.pipelines.report.scores import SIDES, is_number
from dailies.pipelines.showing import clock

EACH = 6  # clips of a kind that are shown side by side
GROUPS, MEMBERS = 12, 4  # groups of duplicates, and clips of each
CAPTIONED = 12
FRAMES, HEIGHT, WIDEST = 6, 144, 320  # of a clip's picture; px of each frame
QUALITY = 60
LONGEST, LONGEST_NAME = 4000, 300  # characters of a caption, and of a file's name
MOST_BYTES = 9_000_000  # of all pictures together: a third more in the page, which stays under 15 MB


def beside(clips: JudgedClips, steps: Sequence[FunnelStep]) -> tuple[Beside, ...]:
    """Return some clips that each step dropped, and some that were kept, which go by the number that the step is about."""
    by_reason = {
        f"{name.replace('.', '_')}_{word}": name for name in clips.limited for word in (*SIDES.values(), "missing")
    }
    kept = np.flatnonzero(clips.keep)
    out = []
    first = pc.list_element(pc.split_pattern(clips.rows["why"], BETWEEN), 0)
    for step in steps:
        fell = np.flatnonzero(flags(pc.equal(first, step.reason)))
        if not len(fell):
            fell = np.flatnonzero(flags(pc.equal(clips.rows["status"], step.reason)))
        column = by_reason.get(step.reason)
        value = None if column is None else _values(clips, column)
        chosen = [_shown(clips, _some(rows, value, EACH), column, value) for rows in (fell, kept)]
        out.append(Beside(step=step, dropped=chosen[0], kept=chosen[1]))
    return tuple(out)


def _values(clips: JudgedClips, column: str) -> NDArray[np.float64] | None:
    values = clips.column(column)
    return None if values is None or not is_number(values.type) else numbers(values)


def _some(rows: NDArray[np.intp], value: NDArray[np.float64] | None, most: int) -> list[int]:
    """Return at most ``most`` of these row numbers, from the least ``value`` to the greatest where it is given."""
    ordered = rows if value is None else rows[np.argsort(value[rows], kind="stable")]
    return [int(ordered[place]) for place in spread(range(len(ordered)), most)]


def _shown(
    clips: JudgedClips, rows: Sequence[int], column: str | None, value: NDArray[np.float64] | None
) -> tuple[ClipNote, ...]:
    ids, seconds = clips.rows["clip_id"], clips.seconds
    return tuple(
        ClipNote(
            clip_id=ids[row].as_py(),
            note=f"{seconds[row]:.1f} s"
            if column is None or value is None or not np.isfinite(value[row])
            else f"{column} {value[row]:.4g}",
        )
        for row in rows
    )


def captioned(clips: JudgedClips, captions: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of some kept clips that have a caption."""
    if not captions:
        return ()
    told = np.zeros(len(clips.rows), dtype=bool)
    for name in captions:
        told |= flags(pc.not_equal(pc.utf8_trim_whitespace(clips.rows[name]), ""))
    rows = np.flatnonzero(told & clips.keep)
    if not len(rows):
        rows = np.flatnonzero(told)
    return tuple(clips.rows["clip_id"][row].as_py() for row in _some(rows, None, CAPTIONED))


# ---- duplicates -----------------------------------------------------------------------------------------------------


def duplicates(clips: JudgedClips) -> Duplicates:
    """Return groups of clips that are alike: those that a step of the recipe found, and copies of one content and span.

    Of the groups, whose number has no bound, only those that are shown become Python's.
    """
    rows, keep, seconds = clips.rows, clips.keep, clips.seconds
    groups: list[tuple[str, Any]] = []  # column of kinds, and lists of row numbers
    told = np.zeros(len(rows), dtype=bool)
    for name in (name for name in rows.column_names if name.endswith("duplicate_group")):
        lists = _alike(clips, [name], pc.is_valid(rows[name]))
        told[lists.flatten().to_numpy()] = True
        groups.append((f"{name.removesuffix('group')}kind", lists))
    copies = rows["content_id"].filter(pa.array(clips.fell("duplicate")))
    alike = pc.and_(pc.is_in(rows["content_id"], value_set=pc.unique(copies)), pc.equal(rows["status"], "ok"))
    lists = _alike(clips, ["content_id", "stream", "start", "end"], alike)
    if len(lists):
        starts = np.cumsum([0, *pc.list_value_length(lists).to_numpy()[:-1]])
        known = np.logical_and.reduceat(told[lists.flatten().to_numpy()], starts)
        groups.append(("", lists.filter(pa.array(~known))))
    shown = []
    total = sum(len(lists) for _, lists in groups)
    for place in spread(range(total), GROUPS):
        kinds, group = _group(groups, place)
        chosen = sorted(group, key=lambda row: not keep[row])[:MEMBERS]
        shown.append(
            AlikeClips(
                kind=_kind(rows, kinds, group),
                size=len(group),
                clips=tuple(_member(rows, seconds, row) for row in chosen),
            )
        )
    return Duplicates(groups=total, clips=sum(len(lists.flatten()) for _, lists in groups), shown=tuple(shown))


def _alike(clips: JudgedClips, columns: Sequence[str], among: Any) -> pa.ListArray:
    """Return the row numbers of clips that share what these columns hold, where several do, in the order of the first."""
    rows = pa.array(np.flatnonzero(flags(among)))
    table = clips.rows.select(list(columns)).take(rows).append_column("row", rows)
    lists = table.group_by(list(columns), use_threads=False).aggregate([("row", "list")])["row_list"].combine_chunks()
    return lists.filter(pc.greater(pc.list_value_length(lists), 1))


def _group(groups: Sequence[tuple[str, Any]], place: int) -> tuple[str, list[int]]:
    """Return the group at a place among all of them, with the column of its kind."""
    for kinds, lists in groups:
        if place < len(lists):
            return kinds, lists[place].as_py()
        place -= len(lists)
    raise IndexError(place)


def _kind(rows: pa.Table, kinds: str, group: Sequence[int]) -> str:
    """Return how the clips of a group are alike, in a word."""
    if not kinds:
        return "exact"
    names = rows[kinds].take(pa.array(group)).drop_null() if kinds in rows.column_names else []
    return str(names[0]) if len(names) else ""


def _member(rows: pa.Table, seconds: NDArray[np.float64], row: int) -> ClipNote:
    distance = next((name for name in rows.column_names if name.endswith("duplicate_distance")), None)
    far = None if distance is None else rows[distance][row].as_py()
    note = f"{seconds[row]:.1f} s" + ("" if far is None else f", distance {far:.3g}")
    return ClipNote(clip_id=rows["clip_id"][row].as_py(), note=note)


# ---- the clips themselves -------------------------------------------------------------------------------------------


def clips_shown(
    dataset: DatasetTables, recipe: CurationRecipe, clips: JudgedClips, ids: Iterable[str], captions: Sequence[str]
) -> dict[str, Clip]:
    """Return these clips with their frames, in the order given: where there are too many bytes, the last ones have none."""
    wanted = list(dict.fromkeys(ids))
    columns = ["clip_id", "source_id", "uri", "start", "end", "start_seconds", "seconds", "why", "keep"]
    at = pc.index_in(pa.array(wanted, pa.string()), value_set=clips.rows["clip_id"].combine_chunks())
    rows = with_places(dataset, clips.rows.select([*columns, *captions]).take(at.drop_null())).to_pylist()
    frames = evidence(dataset.table(recipe.observations, schema.OBSERVATIONS), rows, FRAMES)
    shown: dict[str, Clip] = {}
    size = 0
    for row in rows:
        picture = strip(frames.get(row["clip_id"], ())) if size < MOST_BYTES else None
        size += 0 if picture is None else len(picture.jpeg)
        shown[row["clip_id"]] = Clip(
            clip_id=row["clip_id"],
            source=shortened(name_of(row["uri"] or ""), LONGEST_NAME),
            place=_place(row),
            seconds=row["seconds"] or 0.0,
            keep=row["keep"],
            reasons=tuple(filter(None, row["why"].split(BETWEEN))),
            captions={name: shortened(scrub(one_line(row[name])), LONGEST) for name in captions if row[name]},
            picture=picture,
        )
    return shown


def _place(row: Mapping[str, Any]) -> str:
    start = row["start_seconds"]
    return "" if start is None else f"{clock(start)}–{clock(start + (row['seconds'] or 0.0))}"


def evidence(table: Table, clips: Sequence[Mapping[str, Any]], most: int) -> dict[str, list[bytes]]:
    """Return the JPEGs of at most ``most`` frames of each clip, in order; the nearest one where none lies within."""
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for clip in clips:
        if clip["start"] is not None:
            by_source.setdefault(clip["source_id"], []).append(clip)
    if not by_source or not table.exists():
        return {}
    rows = table.located(["source_id"], equals={"status": "ok"})
    rows = rows.filter(pc.is_in(rows["source_id"], value_set=pa.array(list(by_source), pa.string())))
    files: dict[str, set[str]] = {}
    for source, file in zip(rows["source_id"].to_pylist(), rows["file"].to_pylist(), strict=True):
        files.setdefault(file, set()).add(source)
    inside: dict[str, list[tuple[int, bytes]]] = {}
    nearest: dict[str, tuple[float, int, bytes]] = {}
    for file, sources in sorted(files.items()):
        for part in read_part(file, ["source_id", "evidence"], source_ids=sorted(sources)):
            for row in part.to_pylist():
                there = sorted((frame["pts"], frame["jpeg"]) for frame in row["evidence"] or ())
                for clip in by_source[row["source_id"]]:
                    _collect(clip, there, most, inside, nearest)
    return {
        identity: [jpeg for _, jpeg in spread(sorted(inside[identity]), most)] or [near[2]]
        for identity, near in nearest.items()
    }


def _collect(
    clip: Mapping[str, Any],
    there: Sequence[tuple[int, bytes]],
    most: int,
    inside: dict[str, list[tuple[int, bytes]]],
    nearest: dict[str, tuple[float, int, bytes]],
) -> None:
    """Add the frames of one segment of a clip's source."""
    identity, middle = clip["clip_id"], (clip["start"] + clip["end"]) / 2
    within = [frame for frame in there if clip["start"] <= frame[0] < clip["end"]]
    inside.setdefault(identity, []).extend(spread(within, most))
    closest = min(((abs(pts - middle), pts, jpeg) for pts, jpeg in there), default=None)
    if closest is not None:
        nearest[identity] = min(nearest.get(identity, closest), closest)


def strip(frames: Sequence[bytes]) -> Picture | None:
    """Return frames side by side in one small JPEG, all as large as the first; None where none of them is a picture."""
    from PIL import Image

    small: list[Any] = []
    size = (0, 0)
    for jpeg in frames:
        try:
            picture = Image.fromarray(pictures.open_picture(jpeg))
        except SourceError:  # that evidence is damaged is told by verify
            continue
        if not small:
            width = round(picture.width * HEIGHT / picture.height)
            size = min(WIDEST, max(24, width)), HEIGHT
        small.append(
            picture.resize(size, Image.Resampling.LANCZOS if picture.height > HEIGHT else Image.Resampling.NEAREST)
        )
    if not small:
        return None
    wide = Image.new("RGB", (size[0] * len(small), size[1]))
    for number, picture in enumerate(small):
        wide.paste(picture, (size[0] * number, 0))
    data = io.BytesIO()
    wide.save(data, "JPEG", quality=QUALITY, optimize=True)
    return Picture(jpeg=data.getvalue(), frames=len(small), width=size[0], height=size[1])
