"""What a run came to: the reports that commands return, and how they look in a terminal."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from dailies.pipelines.train_vae import VaeReport

SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """The sources named in a run. ``failures``: (uri, kind, message)."""

    given: int
    ok: int
    seconds: float
    packets_broken: int
    failures: tuple[tuple[str, str, str], ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReport:
    """One selection over the whole dataset. ``reasons``: first reason → clips; ``limits``: what the rules came to."""

    name: str
    clips: int
    kept: int
    kept_seconds: float
    reasons: Mapping[str, int]
    limits: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, name: str, verdicts: pa.Table, clips: pa.Table, limits: Mapping[str, Any]) -> SelectionReport:
        kept = verdicts.filter(verdicts["keep"])["clip_id"].combine_chunks()
        seconds = pc.sum(clips.filter(pc.is_in(clips["clip_id"], value_set=kept))["seconds"]).as_py() or 0.0
        reasons = Counter(reason for reason in verdicts["reason"].to_pylist() if reason)
        return cls(
            name=name,
            clips=len(verdicts),
            kept=len(kept),
            kept_seconds=seconds,
            reasons=dict(reasons.most_common()),
            limits=limits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """One export; ``path`` is None when no clip was kept.

    ``lost_seconds``: of clips copied from keyframe to keyframe, what lay outside, and the whole of those that cannot be
    copied, ``not_copied`` of the ``failed``.
    """

    name: str
    path: str | None
    splits: Mapping[str, int]
    failed: int
    bytes: int = 0
    seconds: float = 0.0
    lost_seconds: float = 0.0
    not_copied: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run of ``curate``."""

    dataset: str
    recipe: str
    recipe_hash: str
    sources: SourceReport
    clips: Mapping[str, Any]
    selections: tuple[SelectionReport, ...] = field(default=())
    exports: tuple[ExportReport, ...] = field(default=())

    @property
    def all_failed(self) -> bool:
        return self.sources.ok == 0


def source_report(table: Any, given: Sequence[str], changed: Sequence[str]) -> SourceReport:
    """How the sources of this run fared, from the observations."""
    ids = pa.array(given, pa.string())
    rows = table.read(["source_id", "segment", "status", "seconds", "packets_broken"])
    broken = rows.filter(pc.equal(rows["status"], "failed"))["source_id"].combine_chunks()  # a segment is enough
    ok = rows.filter(
        pc.and_not(pc.is_in(rows["source_id"], value_set=ids), pc.is_in(rows["source_id"], value_set=broken))
    )
    failed = table.read(["source_id", "uri", "failure"], equals={"status": "failed"})
    failed = failed.filter(pc.is_in(failed["source_id"], value_set=ids)).to_pylist()
    return SourceReport(
        given=len(given),
        ok=len(ok.filter(pc.equal(ok["segment"], 0))),
        seconds=pc.sum(ok["seconds"]).as_py() or 0.0,
        packets_broken=pc.sum(ok["packets_broken"]).as_py() or 0,
        failures=tuple(sorted((row["uri"], row["failure"]["kind"], row["failure"]["message"]) for row in failed)),
        changed=tuple(changed),
    )


# ---- in a terminal --------------------------------------------------------------------------------------------------


def stdout() -> Console:
    return Console(highlight=False)


def _grid(title: str) -> RichTable:
    return RichTable(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def print_summary(summary: Summary, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(summary)))
        return
    out = stdout()
    sources = summary.sources
    out.print()
    if sources.failures:
        table = _grid(f"{len(sources.failures)} of {sources.given} sources failed")
        for name in ("source", "reason", "what was said"):
            table.add_column(name, overflow="fold")
        for uri, kind, message in sources.failures[:SHOWN_FAILURES]:
            table.add_row(escape(_tail(uri)), kind, escape(message))
        out.print(table)
        if len(sources.failures) > SHOWN_FAILURES:
            ask = "select uri, failure from observations where status = 'failed'"
            out.print(f'and {len(sources.failures) - SHOWN_FAILURES} more: dailies sql {summary.dataset} "{ask}"')
    for uri in sources.changed:
        out.print(f"changed since last time, done again: {uri}", markup=False)
    for selection in summary.selections:
        out.print(_selection_table(selection))
    _print_totals(out, summary)


def _print_totals(out: Console, summary: Summary) -> None:
    sources, counts = summary.sources, summary.clips["counts"]
    broken = f", {sources.packets_broken} broken packets passed over" if sources.packets_broken else ""
    short = f", {counts['too_short']} shots too short" if counts["too_short"] else ""
    lines = [
        ("sources", f"{sources.ok} of {sources.given} usable, {_length(sources.seconds)}{broken}"),
        ("clips", f"{counts['ok']}, {_length(summary.clips['seconds']['ok'])}{short}"),
        *((f"select {one.name}", f"{one.kept} kept, {_length(one.kept_seconds)}") for one in summary.selections),
        *((f"export {one.name}", _export_words(one)) for one in summary.exports),
        ("dataset", summary.dataset),
    ]
    for export in summary.exports:
        if export.path:
            lines += [("shards", _near(f"{export.path}/data")), ("card", _near(f"{export.path}/README.md"))]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        out.print(f"{label:<{width}}  {text}", soft_wrap=True, markup=False)


def _near(path: str) -> str:
    """A local path as seen from here, where that is shorter."""
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path


def print_training(phases: Sequence[Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(phase) for phase in phases]))
        return
    table = _grid("training")
    for name in ("phase", "task"):
        table.add_column(name)
    for name in ("steps", "seconds", "validation loss before", "after"):
        table.add_column(name, justify="right")
    for phase in phases:
        losses = (f"{phase.first_loss:.3f}", f"{phase.last_loss:.3f}")
        table.add_row(phase.name, phase.task, str(phase.steps), f"{phase.seconds:.0f}", *losses)
    out = stdout()
    out.print(table)
    for phase in phases:
        out.print(f"{phase.name:<8} {_near(phase.samples)}", soft_wrap=True, markup=False)


def print_vae(done: VaeReport, as_json: bool) -> None:
    """What finetuning a temporal decoder changed on clips held out."""
    if as_json:
        print(json.dumps(asdict(done)))
        return
    table = _grid(f"temporal decoder, {done.steps} steps in {done.seconds:.0f} s")
    table.add_column("on clips held out")
    for name in ("PSNR, dB", "flicker error, levels of 255"):
        table.add_column(name, justify="right")
    rows = {"image decoder": done.image, "before the first step": done.before, "after the last": done.after}
    for name, figures in rows.items():
        if figures is not None:
            table.add_row(name, f"{figures[0]:.2f}", f"{figures[1]:.2f}")
    out = stdout()
    out.print(table)
    for note in done.notes:
        out.print(note, markup=False)
    out.print(f"vae      {_near(done.folder)}", soft_wrap=True, markup=False)


def print_next(summary: Summary, model: str, zoo: str, video: str) -> None:
    """Where the model and its video are, and what to try next."""
    ask = "select caption_coca, caption_fuse, motion from export_export limit 5"
    stdout().print(
        f"model   {_near(zoo)}/{model}\n"
        f"video   {_near(video)}\n\n"
        "[bold]Next[/bold]\n"
        f'  dailies sql {summary.dataset} "{ask}"\n'
        f"  dailies select {summary.dataset} --name captioned --set captioned.rules.motion.min=2\n"
        f"  dailies zoo show {model} --zoo {_near(zoo)}\n"
        "  dailies curate YOUR_VIDEOS --out DATASET",
        soft_wrap=True,
    )


def _selection_table(selection: SelectionReport) -> RichTable:
    table = _grid(f"selection {selection.name}")
    table.add_column("clips")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    table.add_column("limit")
    table.add_row("kept", str(selection.kept), _share(selection.kept, selection.clips), "")
    for reason, count in selection.reasons.items():
        table.add_row(
            f"dropped: {reason}", str(count), _share(count, selection.clips), _limit(reason, selection.limits)
        )
    return table


def _limit(reason: str, limits: Mapping[str, Mapping[str, Any]]) -> str:
    for column, limit in limits.items():
        word = column.replace(".", "_")
        if reason == f"{word}_low":
            return f"{column} < {limit['min']:.4g}"
        if reason == f"{word}_high":
            return f"{column} > {limit['max']:.4g}"
    return ""


def _export_words(export: ExportReport) -> str:
    if export.path is None and export.failed:
        return f"none: {export.failed} clips could not be cut out; are their sources still there?"
    if export.path is None:
        return "nothing to export: no clip was kept"
    splits = ", ".join(f"{count} {split}" for split, count in export.splits.items())
    whole = export.seconds + export.lost_seconds
    lost = (
        f", {_length(export.lost_seconds)} ({export.lost_seconds / whole:.0%}) lost to keyframes"
        if export.lost_seconds
        else ""
    )
    why = f" ({export.not_copied} cannot be copied)" if export.not_copied else ""
    failed = f", {export.failed} could not be cut out{why}" if export.failed else ""
    return f"{splits}; {_length(export.seconds)}, {export.bytes / 1e6:.1f} MB{lost}{failed}"


def print_selection(selection: SelectionReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(selection)))
    else:
        stdout().print(_selection_table(selection))


def print_export(export: ExportReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(export)))
        return
    print(_export_words(export))
    if export.path:
        print(_near(export.path))


def print_cuts(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    out = stdout()
    for path, cuts in found.items():
        table = _grid(escape(f"{path}: {len(cuts)} cuts"))
        for name in ("frame", "end", "kind"):
            table.add_column(name, justify="left" if name == "kind" else "right")
        for cut in cuts:
            table.add_row(str(cut["frame"]), str(cut["end"]), cut["kind"])
        out.print(table)


def print_table(rows: pa.Table, form: str) -> None:
    """Rows of a query as a table, JSON or CSV; bytes are shown by their size."""
    if form == "csv":
        import csv
        import sys

        writer = csv.writer(sys.stdout)
        writer.writerow(rows.column_names)
        writer.writerows([[_plain(value) for value in row.values()] for row in rows.to_pylist()])
        return
    if form == "json":
        print(json.dumps([{key: _plain(value) for key, value in row.items()} for row in rows.to_pylist()], default=str))
        return
    table = _grid("")
    table.title = None
    for column in rows.schema:
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        table.add_column(column.name, justify="right" if numeric else "left", overflow="fold")
    for row in rows.to_pylist():
        table.add_row(*(escape(_cell(_plain(value))) for value in row.values()))
    stdout().print(table)
    print(f"{len(rows)} rows")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 8:
        return f"[{', '.join(map(str, value[:3]))}, … {len(value)} in all]"
    return str(value)


def print_problems(dataset: str, problems: Sequence[Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems]))
    elif not problems:
        print(f"{dataset}: everything holds together")
    else:
        table = _grid(escape(f"{len(problems)} problems in {dataset}"))
        for name in ("table", "where", "what"):
            table.add_column(name, overflow="fold")
        for problem in problems:
            table.add_row(escape(problem.table), escape(problem.where), escape(problem.message))
        stdout().print(table)


def print_collected(removed: Sequence[Any], dry_run: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(file) for file in removed]))
        return
    size = sum(file.size for file in removed)
    for file in removed:
        print(file.path)
    print(f"{len(removed)} files, {size / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}")


def print_withdrawn(counts: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps(dict(counts)))
        return
    for table, count in counts.items():
        print(f"{table:<40} {count} rows deleted")


def print_recipes(as_json: bool) -> None:
    from dailies.curation.captioners import CAPTIONERS
    from dailies.curation.detectors import DETECTORS
    from dailies.curation.observers import OBSERVERS
    from dailies.curation.scorers import SCORERS
    from dailies.pipelines.recipe import recipe_names

    have = {
        "recipes": recipe_names(),
        "observers": list(OBSERVERS),
        "detectors": list(DETECTORS),
        "scorers": list(SCORERS),
        "captioners": list(CAPTIONERS),
    }
    if as_json:
        print(json.dumps(have))
        return
    for what, names in have.items():
        print(f"{what:<10} {', '.join(names)}")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _tail(path: str, most: int = 60) -> str:
    return path if len(path) <= most else f"…{path[-most + 1 :]}"
