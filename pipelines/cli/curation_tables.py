"""Reports of curation are printed here, for a terminal or as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dailies.curation.errors import UsageError
from dailies.curation.plain_text import spreadsheet
from dailies.pipelines.cli.tables import DASH, counted, footage, grid, near, share, tail
from dailies.pipelines.cli.terminal import say, say_json, stdout
from dailies.pipelines.reports import broken_limit

if TYPE_CHECKING:
    from dailies.curation.tables import DatasetProblem
    from dailies.curation.tables.dataset import Garbage
    from dailies.pipelines.cuts import CutsReport
    from dailies.pipelines.reports import AnnotationReport, ExportReport, SelectionReport, Summary

SHOWN_FAILURES = 20


def print_summary(summary: Summary, as_json: bool) -> None:
    if as_json:
        say_json(asdict(summary))
        return
    out = stdout()
    sources = summary.sources
    out.print()
    if sources.failures:
        table = grid(f"{len(sources.failures)} of {counted(sources.given, 'source')} failed")
        for name in ("source", "reason", "what is wrong"):
            table.add_column(name, overflow="fold")
        for uri, kind, message in sources.failures[:SHOWN_FAILURES]:
            table.add_row(tail(uri), kind, message)
        out.print(table)
        if len(sources.failures) > SHOWN_FAILURES:
            ask = "select uri, failure from observations where status = 'failed'"
            out.print(f'and {len(sources.failures) - SHOWN_FAILURES} more: dailies sql {summary.dataset} "{ask}"')
    for uri in sources.changed:
        out.print(f"changed since the last run, so curated again: {uri}")
    if sources.moved:
        out.print(f"moved since the last run, and not curated again: {counted(len(sources.moved), 'source')}")
    for uri in sources.withdrawn:
        out.print(f"withdrawn, so left out (--readmit PATH lets it in again): {uri}")
    for selection in summary.selections:
        out.print(_selection_table(selection))
    _print_totals(out, summary)


def _print_totals(out: Console, summary: Summary) -> None:
    sources, counts = summary.sources, summary.clips.counts
    broken = f", {counted(sources.packets_broken, 'broken packet')} skipped" if sources.packets_broken else ""
    short = f", {counted(counts['too_short'], 'shot')} too short" if counts["too_short"] else ""
    long = f", {counts['too_long']} too long" if counts["too_long"] else ""
    lost = counts["outside"] + counts["empty"]
    spans = f", {counted(lost, 'span')} without frames" if lost else ""
    uncut = f", {counts['failed']} could not be cut" if counts["failed"] else ""
    lines = [
        ("sources", f"{sources.ok} of {sources.given} usable, {footage(sources.seconds)}{broken}"),
        ("clips", f"{counts['ok']}, {footage(summary.clips.seconds['ok'])}{short}{long}{spans}{uncut}"),
        *((each.name, _annotation_line(each)) for each in summary.annotations if each.failed),
        *((f"select {each.name}", f"{each.kept} kept, {footage(each.kept_seconds)}") for each in summary.selections),
        *((f"export {each.name}", _export_line(each)) for each in summary.exports),
        ("dataset", summary.dataset),
    ]
    for export in summary.exports:
        if export.path:
            lines += [("shards", near(f"{export.path}/data")), ("card", near(f"{export.path}/README.md"))]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        out.print(f"{label:<{width}}  {text}", soft_wrap=True)


def _annotation_line(annotation: AnnotationReport) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in annotation.kinds.items())
    return f"{counted(annotation.failed, 'clip')} failed ({kinds}), such as: {annotation.message}"


def print_selection(selection: SelectionReport, as_json: bool) -> None:
    if as_json:
        say_json(asdict(selection))
    else:
        stdout().print(_selection_table(selection))


def _selection_table(selection: SelectionReport) -> Table:
    table = grid(f"selection {selection.name}")
    table.add_column("clips")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    table.add_column("limit")
    table.add_row("kept", str(selection.kept), share(selection.kept, selection.clips), "")
    for reason, count in selection.reasons.items():
        table.add_row(
            f"dropped: {reason}", str(count), share(count, selection.clips), broken_limit(reason, selection.limits)
        )
    return table


def print_export(export: ExportReport, as_json: bool) -> None:
    if as_json:
        say_json(asdict(export))
        return
    say(_export_line(export))
    if export.path:
        say(near(export.path))


def _export_line(export: ExportReport) -> str:
    if export.path is None and export.failed:
        return f"none: {export.failed} clips could not be extracted; are their sources still there?"
    if export.path is None:
        return "nothing to export: no clip was kept"
    splits = ", ".join(f"{count} {split}" for split, count in export.splits.items())
    whole = export.seconds + export.lost_seconds
    lost = (
        f", {footage(export.lost_seconds)} ({export.lost_seconds / whole:.0%}) lost to keyframes"
        if export.lost_seconds
        else ""
    )
    why = f" ({export.not_copied} cannot be copied)" if export.not_copied else ""
    again = "; --retry-failed tries them again" if export.failed > export.not_copied else ""
    failed = f", {export.failed} could not be extracted{why}{again}" if export.failed else ""
    return f"{splits}; {footage(export.seconds)}, {export.bytes / 1e6:.1f} MB{lost}{failed}"


def print_cuts(report: CutsReport, as_json: bool) -> None:
    """Print the cuts to stdout, and the videos that could not be read to stderr."""
    if as_json:
        say_json({path: [asdict(cut) for cut in cuts] for path, cuts in report.cuts.items()})
    else:
        for path, cuts in report.cuts.items():
            table = grid(f"{path}: {len(cuts)} cuts")
            for name in ("frame", "end", "kind"):
                table.add_column(name, justify="left" if name == "kind" else "right")
            for cut in cuts:
                table.add_row(str(cut.frame), str(cut.end), cut.kind)
            stdout().print(table)
    for path, reason in report.failures.items():
        say(f"dailies: {path}: {reason}", err=True)


def print_rows(rows: pa.Table, layout: Literal["table", "json", "csv"]) -> None:
    """Print rows of a query as a table, JSON or CSV; bytes are shown by their size."""
    if layout == "csv":
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(map(spreadsheet, rows.column_names))
        for row in _listed(rows):
            cells = map(_plain, row.values())
            writer.writerow([spreadsheet(cell) if isinstance(cell, str) else cell for cell in cells])
        say(lines.getvalue().removesuffix("\n"), data=True)
        return
    if layout == "json":
        say_json([{key: _plain(value) for key, value in row.items()} for row in _listed(rows)])
        return
    table = grid()
    for column in rows.schema:
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        table.add_column(column.name, justify="right" if numeric else "left", overflow="fold")
    for row in _listed(rows):
        table.add_row(*(_cell(_plain(value)) for value in row.values()))
    stdout(data=True).print(table)
    say(counted(len(rows), "row"))


def _listed(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as Python values. Raises ``UsageError`` for a date that Python has not."""
    try:
        listed: list[dict[str, Any]] = rows.to_pylist()
    except (OverflowError, ValueError) as error:
        raise UsageError(f"the result has a time that cannot be shown: {error}; cast it to varchar") from error
    return listed


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
        return DASH
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 8:
        return f"[{', '.join(map(str, value[:3]))}, … {len(value)} in all]"
    return str(value)


def print_problems(dataset: str, problems: Sequence[DatasetProblem], as_json: bool) -> None:
    if as_json:
        say_json([asdict(problem) for problem in problems])
    elif not problems:
        say(f"{dataset}: no problems")
    else:
        table = grid(f"{counted(len(problems), 'problem')} in {dataset}")
        for name in ("table", "where", "what"):
            table.add_column(name, overflow="fold")
        for problem in problems:
            table.add_row(problem.table, problem.where, problem.message)
        stdout().print(table)


def print_collected(removed: Sequence[Garbage], dry_run: bool, as_json: bool) -> None:
    if as_json:
        say_json([asdict(file) for file in removed])
        return
    size = sum(file.size for file in removed)
    for file in removed:
        say(file.path)
    say(f"{counted(len(removed), 'file')}, {size / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}")


def print_withdrawn(counts: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        say_json(dict(counts))
        return
    for table, count in counts.items():
        say(f"{table:<40} {counted(count, 'row')} deleted")


def print_recipes(as_json: bool) -> None:
    from dailies.curation.captioners import CAPTIONERS
    from dailies.curation.detectors import DETECTORS
    from dailies.curation.observers import OBSERVERS
    from dailies.curation.scorers import SCORERS
    from dailies.pipelines.recipes.recipe import recipe_names

    names_by_kind = {
        "recipes": recipe_names(),
        "observers": list(OBSERVERS),
        "detectors": list(DETECTORS),
        "scorers": list(SCORERS),
        "captioners": list(CAPTIONERS),
    }
    if as_json:
        say_json(names_by_kind)
        return
    for kind, names in names_by_kind.items():
        say(f"{kind:<10} {', '.join(names)}")
