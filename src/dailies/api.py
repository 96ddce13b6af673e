"""The Python door: functions and a ``Dataset`` that do the commands' work and return reports instead of printing tables.

Long calls show a line per stage in a terminal or a notebook; ``progress`` takes something else to show it with
(``dailies.silent`` shows nothing). ``overrides`` change single values of a recipe, as ``--set`` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import video as videos
from dailies.curation.clips import span_of
from dailies.curation.errors import SourceError, UsageError
from dailies.curation.policy import SourcePolicy, opening_by, policy_in_force
from dailies.curation.progress import Progress, reporting
from dailies.curation.tables import DatasetTables, query, with_places
from dailies.curation.types import Frames
from dailies.pipelines import again, run, selecting
from dailies.pipelines import cuts as cut_finding
from dailies.pipelines import train as training
from dailies.pipelines.caption_comparing import CaptionComparison, compare_captions
from dailies.pipelines.cli.progress import say_of_stage, show_progress
from dailies.pipelines.comparing import compare_selections
from dailies.pipelines.engine import Engine
from dailies.pipelines.overview import DatasetOverview, overview
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe
from dailies.pipelines.report import Funnel, stats, write_report
from dailies.pipelines.reports import (
    DuplicatesReport,
    ExportReport,
    SelectionDiff,
    SelectionPreview,
    SelectionReport,
    Summary,
)
from dailies.pipelines.showing import Shown, show

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def _paths(paths: Paths) -> list[str]:
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def detect_cuts(
    video: str | os.PathLike[str],
    *,
    recipe: str | CurationRecipe = "default",
    overrides: Sequence[str] = (),
) -> tuple[cut_finding.FrameCut, ...]:
    """Find where shots meet in one video, without a dataset.

    Raises ``UsageError`` for a path that does not exist or names several videos (``pipelines.cuts.find_cuts`` takes those),
    and ``SourceError`` for a video that cannot be read.
    """
    report = cut_finding.find_cuts([os.fspath(video)], load_recipe(recipe, overrides))
    if report.failures:
        raise SourceError(next(iter(report.failures.values())))
    if len(report.cuts) != 1:
        raise UsageError(f"video={video}: names {len(report.cuts)} videos; give one file")
    return next(iter(report.cuts.values()))


def curate(
    sources: Paths,
    out: str | os.PathLike[str],
    *,
    recipe: str | CurationRecipe = "default",
    overrides: Sequence[str] = (),
    engine: Engine = "auto",
    workers: int | None = None,
    retry_failed: bool = False,
    column: str | None = None,
    readmit: Sequence[str] = (),
    allow_local: bool = False,
    allow_private_hosts: bool = False,
    follow_links: bool = True,
    private_sources: bool = False,
    progress: Progress = show_progress,
) -> Summary:
    """Turn raw video into a dataset and training shards; repeat the call to resume.

    ``sources``: files, folders, globs or manifests, whose column ``column`` names the videos. ``recipe``: a built-in name, a
    YAML file, or a ``CurationRecipe``. ``engine``: ``local`` for processes on this machine, ``ray``, or ``auto``, which takes
    Ray for the cluster at ``RAY_ADDRESS`` and for several GPUs. ``workers``: processes at most, by default one for each CPU;
    with 1, a plain loop in this process. ``allow_local``: let manifests name files outside of their own folder;
    ``allow_private_hosts``: read URLs of this machine and of private networks that a manifest names, or another URL leads
    to; ``follow_links``: whether to look behind the links in folders and globs. ``private_sources``: exports do not say where
    sources lie.
    Returns what became of every source, clip and selection, each loss with its reason. Raises ``UsageError`` before any work
    where the request cannot be met.
    """
    return run.curate(
        _paths(sources),
        os.fspath(out),
        load_recipe(recipe, overrides),
        engine=engine,
        workers=workers,
        retry_failed=retry_failed,
        column=column,
        readmit=readmit,
        policy=SourcePolicy(local=allow_local, private_hosts=allow_private_hosts),
        follow_links=follow_links,
        private_sources=private_sources,
        progress=progress,
    )


class Dataset:
    """A curated dataset, opened at a folder or URL. Raises ``DatasetError`` where there is none.

    ``tables`` is the dataset of Delta tables underneath.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.tables = DatasetTables.open(os.fspath(url))

    def __repr__(self) -> str:
        return f"Dataset({self.url!r})"

    @property
    def url(self) -> str:
        """Where it lies."""
        return self.tables.url

    @property
    def recipe(self) -> CurationRecipe:
        """The recipe of its last run. Raises ``UsageError`` where there was none."""
        return selecting.last_recipe(self.tables, ())

    @property
    def exports(self) -> tuple[str, ...]:
        """The folders of its exports, which training takes; the last is the one that the newest run made, or found again."""
        folder = self.tables.folder / "exports"
        return tuple((folder / name).url for name in self.tables.exports_by_age())

    def overview(self) -> DatasetOverview:
        """Return what it holds: sources, clips, selections, exports, its size, and what of its recipe is missing."""
        return overview(self.url)

    def show(self, item: str | None = None, *, selection: str | None = None, frames: int = 8) -> Shown:
        """Return the numbers, verdicts and frames of a clip or source, or of clips that a selection kept and dropped.

        ``item``: a clip's id, or a source's id, path, URL or file name; of an id the first characters do; none: a selection.
        ``frames``: pictures of a clip, or clips of a reason. ``.save("sheet.png")`` writes the frames as a contact sheet.
        Raises ``UsageError`` for what is not there.
        """
        return show(self.url, item, selection=selection, frames=frames)

    def stats(self, selection: str | None = None) -> Funnel:
        """Return the funnel: what each rule of a ``selection``, by default the last, dropped, and what was kept.

        Raises ``UsageError`` for a selection that there is not.
        """
        return stats(self.url, selection=selection)

    def report(self, out: str | os.PathLike[str] | None = None, *, selection: str | None = None) -> str:
        """Write a page of HTML that shows what a ``selection`` kept and dropped, and why; return its path.

        ``out``: by default ``report.html`` in the dataset's folder. Raises ``UsageError`` for a selection that there is not.
        """
        return write_report(self.url, out, selection=selection)

    def sql(self, statement: str, *, unrestricted: bool = False) -> pa.Table:
        """Run DuckDB SQL over every table; ``show tables`` lists the views. Raises ``UsageError`` for a wrong statement.

        A statement sees this dataset's tables alone; ``unrestricted`` lets it read and write files and load extensions.
        """
        return query(self.tables, statement, unrestricted=unrestricted)

    def clips(self, selection: str | None = None) -> pa.Table:
        """Return a row per clip with the columns of every observer, scorer and captioner of the last run's recipe.

        ``selection`` adds its verdicts as the columns ``keep``, ``reason`` and ``reasons``. Raises ``UsageError`` for a
        selection that there is not.
        """
        clips = selecting.joined(self.tables, self.recipe)
        if selection is None:
            return clips
        name = f"selections/{selection}"
        there = [table.removeprefix("selections/") for table in self.tables.tables() if table.startswith("selections/")]
        if selection not in there:
            raise UsageError(f"selection={selection!r}: no such selection; there are {', '.join(there) or 'none'}")
        verdicts = self.tables.table(name).read(["clip_id", "keep", "reason", "reasons"])
        verdicts = verdicts.take(pc.index_in(clips["clip_id"], value_set=verdicts["clip_id"].combine_chunks()))
        for column in ("keep", "reason", "reasons"):  # Arrow joins no lists
            clips = clips.append_column(column, verdicts[column])
        return clips

    def select(self, name: str = "main", *, overrides: Sequence[str] = ()) -> SelectionReport:
        """Select clips again under other rules, such as ``overrides=["main.rules.motion.min=1.5"]``; computes nothing again."""
        return again.select_again(self.url, name, overrides)

    def preview(self, name: str = "main", *, overrides: Sequence[str] = ()) -> SelectionPreview:
        """Return what ``select`` would keep, what falls by each rule, and what other limits would keep; writes nothing."""
        return again.preview_selection(self.url, name, overrides)

    def diff(self, a: str, b: str) -> SelectionDiff:
        """Compare two selections: what both keep, what one alone keeps, and why the other drops it."""
        return compare_selections(self.url, a, b)

    def compare_captions(self, a: str, b: str, *, samples: int = 6, seed: int = 0) -> CaptionComparison:
        """Compare two captioners: lengths, vocabulary, likeness, flags, and where each fits its clip better.

        ``samples``: how many clips are drawn, by ``seed``, to see both captions of.
        """
        return compare_captions(self.url, a, b, samples=samples, seed=seed)

    def export(
        self,
        name: str = "export",
        *,
        overrides: Sequence[str] = (),
        engine: Engine = "auto",
        workers: int | None = None,
        retry_failed: bool = False,
        allow_private_hosts: bool = False,
        sources: Paths = (),
        column: str | None = None,
        private_sources: bool = False,
        progress: Progress = show_progress,
    ) -> ExportReport:
        """Export the last selection, with overrides such as ``overrides=["export.crf=23"]``.

        ``engine``, ``workers``: as of ``curate``. ``retry_failed``: try the clips again that an export which exists lacks.
        ``allow_private_hosts``: read sources at URLs of this machine and of private networks. ``sources``: those of the
        dataset by whole URLs, of which it keeps no passwords and signatures: files, folders, globs or manifests, whose
        column ``column`` names them. ``private_sources``: the export does not say where sources lie.
        """
        return again.export_again(
            self.url,
            name,
            overrides,
            engine=engine,
            workers=workers,
            retry_failed=retry_failed,
            policy=SourcePolicy(private_hosts=allow_private_hosts),
            sources=_paths(sources),
            column=column,
            private_sources=private_sources,
            progress=progress,
        )

    def dedup(
        self,
        overrides: Sequence[str] = (),
        *,
        engine: Engine = "auto",
        workers: int | None = None,
        progress: Progress = show_progress,
    ) -> DuplicatesReport:
        """Group copies of clips, with overrides such as ``dedup.perceptual.distance=0.2``; no video is decoded.

        Later selections and exports know the groups, and put each into one split.
        """
        return again.dedup_again(self.url, overrides, engine=engine, workers=workers, progress=progress)

    def frames(self, clip_id: str, *, short_side: int | None = None, address: str | None = None) -> Frames:
        """Decode a clip from its source: ``pixels`` (t, h, w, 3) uint8 RGB, upright, and ``pts`` (t,) of each frame.

        ``short_side``: px to scale down to. ``address``: the source's whole URL, of which the dataset keeps no password and
        no signature. Raises ``UsageError`` for a clip that there is not, and ``SourceError`` where the
        source is gone or ``Changed``.
        """
        table = selecting.clips_table(self.tables, self.recipe)
        rows = with_places(self.tables, table.read(filter=pc.field("clip_id") == clip_id)).to_pylist()
        if not rows:
            raise UsageError(f"clip_id={clip_id!r}: {self.url} has no such clip; Dataset.clips() lists them")
        clip = rows[0]
        at = clip["uri"] if address is None else address
        with opening_by(policy_in_force().naming([] if address is None else [address])):
            videos.check_content(at, clip["content_id"])
            return videos.read_span(at, span_of(clip), stream=clip["stream"], short_side=short_side)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """A training run: its folder, and what each phase came to."""

    run: str
    phases: tuple[training.PhaseReport, ...]


def train(
    recipe: Any,
    data: Paths | Mapping[str, str],
    out: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    start: str | None = None,
    parts: Mapping[str, str | None] | None = None,
    phase: str | None = None,
    device: str = "auto",
    workers: int = 1,
    resume: bool = False,
    say: training.Say = say_of_stage,
    progress: Progress = show_progress,
) -> TrainReport:
    """Train ``recipe`` on exports into the folder ``out``; repeat the call to resume.

    Args:
        recipe: a built-in name, ``FILE.py``, or a ``training.recipes.TrainingRecipe``.
        data: an export's folder, or several by name.
        start: the model to start from: a diffusers folder, ``zoo:NAME`` or a hub id.
        parts: ``vae``, ``text`` and ``image`` encoders that replace those of ``start``.
        phase: the only phase to train.
        say: called with each line on how far it is.
        progress: shows a line per phase meanwhile.

    Raises ``UsageError`` before any work where these do not fit each other, ``NotFinite`` and ``OutOfMemory``.
    """
    exports = (
        [f"{name}={os.fspath(path)}" for name, path in data.items()] if isinstance(data, Mapping) else _paths(data)
    )
    request = training.Request(
        recipe=recipe,
        sets=overrides,
        data=exports,
        start=start,
        parts=dict(parts or {}),
        phase=phase,
    )
    with reporting(progress):
        phases = training.train_run(request, os.fspath(out), resume=resume, device=device, workers=workers, say=say)
    return TrainReport(run=os.fspath(out), phases=tuple(phases))
