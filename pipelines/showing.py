"""Shows a clip, a source or a selection of a dataset: its numbers, the verdicts with their reasons, and its frames.

The frames are the evidence that was stored when the source was observed, so nothing is decoded and a source may be gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema, video
from dailies.curation.addresses import name_of, public
from dailies.curation.config import did_you_mean
from dailies.curation.contact_sheet import Strip, save_sheet, spread
from dailies.curation.errors import UsageError
from dailies.curation.tables import DatasetTables, with_places
from dailies.pipelines.maintenance import known_as
from dailies.pipelines.places import known_sources
from dailies.pipelines.recipes.recipe import CurationRecipe
from dailies.pipelines.recipes.steps import SelectStep, plain_columns
from dailies.pipelines.reports import broken_limit
from dailies.pipelines.selecting import clips_table, last_recipe

LEAST = 4  # characters of an id that may stand for it
DRAWN = 40  # clips of a source of which frames are shown
HIDDEN = frozenset({"failure", "failed_version"})
WHAT_IT_IS = frozenset(field.name for field in schema.CLIP_COLUMNS) - {"start_strength", "end_strength", "cuts_inside"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a selection says of a clip: ``reasons`` has, for each rule that it fell by, the reason and what broke it."""

    selection: str
    keep: bool
    reasons: Mapping[str, str]

    @property
    def text(self) -> str:
        """The verdict in words: ``kept``, or ``dropped: motion_low (motion 0.12 < 0.3)``."""
        if self.keep:
            return "kept"
        return "dropped: " + ", ".join(f"{name} ({why})" if why else name for name, why in self.reasons.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShown:
    """A clip: ``about`` has what it is, ``measured`` the columns of observers, scorers and captioners, and ``failures`` why
    a step has none."""

    about: Mapping[str, Any]
    measured: Mapping[str, Any]
    failures: Mapping[str, str]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What ``show`` found: a clip, a source with its clips, or some of the clips that a selection kept and dropped.

    ``about``: what is known of the source, or how many clips each reason dropped. ``units``: of the columns that have one.
    ``strips``: its frames, for ``contact_sheet``.
    """

    kind: Literal["clip", "source", "selection"]
    title: str
    about: Mapping[str, Any]
    clips: tuple[ClipShown, ...]
    units: Mapping[str, str]
    strips: tuple[Strip, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the frames as a contact sheet, a PNG.

        Raises ``UsageError`` for another kind of file, a folder that does not exist, and where there is no frame.
        """
        where = Path(path)
        if where.suffix.lower() != ".png":
            raise UsageError(f"{where}: a contact sheet is a PNG; name a file that ends in .png")
        if not where.parent.is_dir():
            raise UsageError(f"{where}: there is no folder {where.parent}; make it, or name another")
        if not self.strips:
            raise UsageError(f"{self.title}: no frames to draw; its source was not observed, or it failed")
        save_sheet(where, self.strips, title=self.title)


def show(
    url: str, item: str | None = None, *, selection: str | None = None, frames: int = 8, pictures: bool = True
) -> Shown:
    """Show a clip or source of the dataset at ``url``, or clips that a selection kept and dropped.

    Args:
        url: the dataset.
        item: a clip's id, or a source's id, path, URL or file name; of an id the first characters do. None: a selection.
        selection: whose verdicts to show; by default all of the last run's recipe, and without an item its last.
        frames: pictures to show of a clip, or clips to show of each reason.
        pictures: whether to read frames at all; of a source with more than ``DRAWN`` clips, those of the first.

    Raises ``UsageError`` for what is not there, and for the beginning of several ids.
    """
    dataset = DatasetTables.open(url)
    recipe = last_recipe(dataset, ())
    view = _View(dataset, recipe, selection, pictures=pictures)
    if item is None:
        return _selection(view, frames)
    if clip := _clip_named(view, item):
        return _clip(view, clip, frames)
    return _source(view, _source_named(dataset, item), frames)


class _View:
    """A dataset as the last run's recipe sees it, and the selections to tell of."""

    def __init__(
        self, dataset: DatasetTables, recipe: CurationRecipe, selection: str | None, *, pictures: bool = True
    ) -> None:
        self.dataset, self.recipe, self._pictures = dataset, recipe, pictures
        there = [
            step.name
            for step in recipe.steps
            if isinstance(step, SelectStep) and dataset.table(f"selections/{step.name}").exists()
        ]
        if selection is not None and selection not in there:
            raise UsageError(
                f"--selection={selection}: no such selection; there are {', '.join(there) or 'none'}"
                f"{did_you_mean(selection, there)}"
            )
        self.selections = there if selection is None else [selection]
        self.limits = {name: self._selection(name).properties().get("limits", {}) for name in self.selections}

    def _selection(self, name: str) -> Any:
        return self.dataset.table(f"selections/{name}", schema.SELECTIONS)

    def verdicts(self, name: str) -> pa.Table:
        """Return the rows of a selection: ``clip_id``, ``keep`` and ``reason``, sorted by clip."""
        rows: pa.Table = self._selection(name).read(["clip_id", "keep", "reason"])
        return rows.sort_by("clip_id")

    def clips(self, where: pc.Expression) -> list[ClipShown]:
        """Return the clips that a filter over the table of clips names, in the order of their sources and starts."""
        table = clips_table(self.dataset, self.recipe)
        rows = with_places(self.dataset, table.read(filter=where)).to_pylist()
        rows.sort(key=lambda row: (row["uri"] or "", row["start"] or 0))
        chosen = pc.field("clip_id").isin(pa.array([row["clip_id"] for row in rows], pa.string()))
        measured: dict[str, dict[str, Any]] = {row["clip_id"]: {} for row in rows}
        failures: dict[str, dict[str, str]] = {row["clip_id"]: {} for row in rows}
        for row in rows:
            if row["failure"]:
                failures[row["clip_id"]]["cut"] = f"{row['failure']['kind']}: {row['failure']['message']}"
            values = {name: value for name, value in row.items() if name not in WHAT_IT_IS}
            measured[row["clip_id"]] |= values
        for step in self.recipe.before(None):
            scored = self.dataset.table(self.recipe.annotations(step), schema.scores(step.spec.columns))
            plain = plain_columns(step)
            for row in scored.read(["clip_id", "failure", *plain], filter=chosen).to_pylist():
                if row["failure"]:
                    failures[row["clip_id"]][step.name] = f"{row['failure']['kind']}: {row['failure']['message']}"
                measured[row["clip_id"]] |= {known.name: row[name] for name, known in plain.items()}
        fallen: dict[str, list[Verdict]] = {row["clip_id"]: [] for row in rows}
        for name in self.selections:
            for row in self._selection(name).read(["clip_id", "keep", "reasons"], filter=chosen).to_pylist():
                values = measured[row["clip_id"]]
                reasons = {word: broken_limit(word, self.limits[name], values) for word in row["reasons"] or ()}
                fallen[row["clip_id"]].append(Verdict(selection=name, keep=row["keep"], reasons=reasons))
        return [
            ClipShown(
                about={name: value for name, value in row.items() if name in WHAT_IT_IS and name not in HIDDEN},
                measured=measured[row["clip_id"]],
                failures=failures[row["clip_id"]],
                verdicts=tuple(fallen[row["clip_id"]]),
            )
            for row in rows
        ]

    def units(self) -> dict[str, str]:
        """Return the unit of each column that has one."""
        fields = list(clips_table(self.dataset, self.recipe).schema)
        fields += [known for step in self.recipe.before(None) for known in step.shown.values()]
        return {field.name: unit for field in fields if (unit := (field.metadata or {}).get(b"unit", b"").decode())}

    def evidence(self, clips: Sequence[ClipShown], most: int) -> dict[str, list[tuple[int, bytes]]]:
        """Return pts and JPEG of at most ``most`` frames of each clip, in order; the nearest one where none lies within.

        No more than these, and what a row group holds, is in memory at a time.
        """
        by_source: dict[str, list[ClipShown]] = {}
        for clip in clips:
            if clip.about["start"] is not None:
                by_source.setdefault(clip.about["source_id"], []).append(clip)
        table = self.dataset.table(self.recipe.observations, schema.OBSERVATIONS)
        where = pc.field("source_id").isin(pa.array(sorted(by_source), pa.string())) & (pc.field("status") == "ok")
        inside: dict[str, list[tuple[int, bytes]]] = {}
        nearest: dict[str, tuple[float, int, bytes]] = {}
        for batch in table.batches(["source_id", "evidence"], filter=where) if self._pictures and by_source else ():
            for row in batch.to_pylist():
                there = sorted((frame["pts"], frame["jpeg"]) for frame in row["evidence"] or ())
                for about in (clip.about for clip in by_source[row["source_id"]]):
                    identity, middle = about["clip_id"], (about["start"] + about["end"]) / 2
                    within = [frame for frame in there if about["start"] <= frame[0] < about["end"]]
                    inside.setdefault(identity, []).extend(spread(within, most))
                    closest = min(((abs(pts - middle), pts, jpeg) for pts, jpeg in there), default=None)
                    if closest is not None:
                        nearest[identity] = min(nearest.get(identity, closest), closest)
        return {identity: spread(sorted(inside[identity]), most) or [near[1:]] for identity, near in nearest.items()}


# ---- which one ------------------------------------------------------------------------------------------------------


def _clip_named(view: _View, item: str) -> ClipShown | None:
    """Return the clip whose id ``item`` is or begins. Raises ``UsageError`` where it begins several."""
    if len(item) < LEAST:
        return None
    table = clips_table(view.dataset, view.recipe)
    ids = table.read(["clip_id"], filter=pc.starts_with(pc.field("clip_id"), item))["clip_id"].to_pylist()
    identity = _only(item, ids, "clips")
    return None if identity is None else view.clips(pc.field("clip_id") == identity)[0]


def _source_named(dataset: DatasetTables, item: str) -> dict[str, Any]:
    """Return the source, a row of ``known_sources``, that ``item`` names. Raises ``UsageError`` where there is none."""
    known = known_sources(dataset)
    identity = known_as(item, known)
    if identity is None and len(item) >= LEAST:
        identity = _only(item, [name for name in known if name.startswith(item)], "sources")
    if identity is None:
        identity = _only(item, [name for name, row in known.items() if name_of(row["uri"] or "") == item], "sources")
    if identity is None:
        names = [name_of(row["uri"] or "") for row in known.values()]
        raise UsageError(
            f"{item}: no clip and no source of {dataset.url}{did_you_mean(item, names)}; "
            f'`dailies sql {dataset.url} "select clip_id, uri from clips"` lists them'
        )
    return known[identity]


def _only(item: str, ids: Sequence[str], what: str) -> str | None:
    """Return the one id that there is; an id that is ``item`` itself comes before those it begins."""
    if item in ids:
        return item
    if len(ids) > 1:
        some = ", ".join(sorted(ids)[:3]) + (", …" if len(ids) > 3 else "")
        raise UsageError(f"{item}: begins or names {len(ids)} {what}: {some}; name one")
    return ids[0] if ids else None


# ---- what is shown of it --------------------------------------------------------------------------------------------


def clock(seconds: float) -> str:
    """Return a place in a video as minutes and seconds, ``1:02.5``, with hours where there are some."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02d}" if hours else str(minutes)
    return f"{f'{hours}:' if hours else ''}{text}:{rest / 10:04.1f}"


def _place(clip: ClipShown) -> str:
    about = clip.about
    if about["start_seconds"] is None:
        return about["status"] or "–"
    return f"{clock(about['start_seconds'])}–{clock(about['start_seconds'] + (about['seconds'] or 0.0))}"


def _caption(clip: ClipShown) -> str:
    """Return the text of the last captioner that had one."""
    texts = [value for name, value in clip.measured.items() if name.startswith("caption_") and value]
    return str(texts[-1]) if texts else ""


def _strip(clip: ClipShown, frames: Sequence[tuple[int, bytes]], most: int) -> Strip:
    chosen = spread(frames, most)
    tick = clip.about["time_base_num"] / clip.about["time_base_den"] if chosen else 0.0
    start = clip.about["start"] or 0
    verdicts = [f"{verdict.selection}: {verdict.text}" for verdict in clip.verdicts]
    dropped = bool(clip.verdicts) and not clip.verdicts[-1].keep
    return Strip(
        label=" ".join([_place(clip), *verdicts]),
        pictures=[video.unjpeg(jpeg) for _, jpeg in chosen],
        notes=[clock(clip.about["start_seconds"] + (pts - start) * tick) for pts, _ in chosen],
        text=_caption(clip),
        alarm=dropped,
    )


def _clip(view: _View, clip: ClipShown, frames: int) -> Shown:
    kept = view.evidence([clip], frames).get(clip.about["clip_id"], [])
    uri = public(clip.about["uri"] or "")
    return Shown(
        kind="clip",
        title=f"clip {clip.about['clip_id']}, {_place(clip)} of {uri}",
        about=clip.about,
        clips=(clip,),
        units=view.units(),
        strips=(_strip(clip, kept, frames),) if kept else (),
    )


def _source(view: _View, source: Mapping[str, Any], frames: int) -> Shown:
    table = view.dataset.table(view.recipe.observations, schema.OBSERVATIONS)
    columns = ["segment", "status", "failure", "probe", "seconds", "bytes", "packets_broken", "manifest", "content_id"]
    rows = table.read(columns, equals={"source_id": source["source_id"]}).sort_by("segment").to_pylist()
    failure = next((row["failure"] for row in rows if row["failure"]), None)
    probe = next((row["probe"] for row in rows if row["probe"]), None) or {}
    clips = view.clips(pc.field("source_id") == source["source_id"])
    kept = view.evidence(clips[:DRAWN], frames)
    more = f"; the first {DRAWN} of {len(clips)} clips" if len(clips) > DRAWN else ""
    about = {
        "source_id": source["source_id"],
        "uri": source["uri"],
        "status": "failed" if failure else "ok" if rows else "not observed by the last run's recipe",
        "failure": None if failure is None else f"{failure['kind']}: {failure['message']}",
        "seconds": sum(row["seconds"] or 0.0 for row in rows) or None,
        "bytes": source["bytes"],
        "packets_broken": sum(row["packets_broken"] or 0 for row in rows) or None,
        **{name: probe.get(name) for name in ("container", "codec", "width", "height", "fps", "rotation")},
        "manifest": rows[0]["manifest"] if rows else None,
        "content_id": source["content_id"],
    }
    return Shown(
        kind="source",
        title=f"source {source['source_id']}: {source['uri']}{more}",
        about={name: value for name, value in about.items() if value is not None},
        clips=tuple(clips),
        units=view.units(),
        strips=tuple(
            _strip(clip, kept[clip.about["clip_id"]], frames) for clip in clips if clip.about["clip_id"] in kept
        ),
    )


def _selection(view: _View, most: int) -> Shown:
    """Show some clips of each reason of one selection, kept ones first."""
    if not view.selections:
        raise UsageError(f"{view.dataset.url}: there is no selection yet; dailies curate makes one")
    name = view.selections[-1]
    view.selections = [name]
    rows = view.verdicts(name)
    groups: dict[str | None, list[str]] = {None: []}
    for identity, keep, reason in zip(
        *(rows[column].to_pylist() for column in ("clip_id", "keep", "reason")), strict=True
    ):
        groups.setdefault(None if keep else reason, []).append(identity)
    order = sorted(groups, key=lambda reason: (reason is not None, -len(groups[reason]), reason or ""))
    chosen = {reason: spread(groups[reason], most) for reason in order}
    ids = [identity for some in chosen.values() for identity in some]
    clips = {clip.about["clip_id"]: clip for clip in view.clips(pc.field("clip_id").isin(pa.array(ids, pa.string())))}
    kept = view.evidence(list(clips.values()), 1)
    counts = {"kept" if reason is None else f"dropped: {reason}": len(groups[reason]) for reason in order}
    return Shown(
        kind="selection",
        title=f"selection {name}: {len(groups[None])} of {len(rows)} clips kept",
        about=counts,
        clips=tuple(clips[identity] for identity in ids if identity in clips),
        units=view.units(),
        strips=tuple(_reasons(view, name, chosen, clips, kept)),
    )


def _reasons(
    view: _View,
    name: str,
    chosen: Mapping[str | None, Sequence[str]],
    clips: Mapping[str, ClipShown],
    kept: Mapping[str, Sequence[tuple[int, bytes]]],
) -> Iterator[Strip]:
    """Yield a strip for what was kept and one for each reason: a clip's middle frame, and the value that decided."""
    for reason, ids in chosen.items():
        there = [clips[identity] for identity in ids if identity in kept and identity in clips]
        if not there:
            continue
        limit = broken_limit(reason or "", view.limits[name])
        label = "kept" if reason is None else f"dropped: {reason}"
        yield Strip(
            label=f"{label} {limit}".strip(),
            pictures=[video.unjpeg(kept[clip.about["clip_id"]][0][1]) for clip in there],
            notes=[_deciding(clip, reason, view.limits[name]) for clip in there],
            alarm=reason is not None,
        )


def _deciding(clip: ClipShown, reason: str | None, limits: Mapping[str, Any]) -> str:
    """Return the clip's value that a reason is about, else how long it is."""
    for column in limits:
        if reason and reason.rpartition("_")[0] == column.replace(".", "_") and clip.measured.get(column) is not None:
            value = clip.measured[column]
            return f"{column} {value:.4g}" if isinstance(value, int | float) else f"{column} {value}"
    return f"{clip.about['clip_id'][:8]} {clip.about['seconds'] or 0.0:.2f} s"
