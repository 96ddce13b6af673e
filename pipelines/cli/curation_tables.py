"""Reports of curation are printed here, for a terminal or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from dailies.curation.errors import RETRIED, NotCopied, Refused
from dailies.pipelines.cli.tables import counted, footage, grid, path_of, share, tail
from dailies.pipelines.cli.terminal import say, say_json, stdout

if TYPE_CHECKING:
    from dailies.curation.tables import DatasetProblem
    from dailies.curation.tables.dataset import Garbage
    from dailies.pipelines.cuts import CutsReport
    from dailies.pipelines.reports import AnnotationReport, DuplicatesReport, ExportReport, SelectionReport, Summary

SHOWN_FAILURES = 20
MOST_TOGETHER = 0.2  # of the clips, that share a split, before it is told


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
        if again := tried_again(Counter(kind for _, kind, _ in sources.failures)):
            out.print(again)
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
        _print_selection(out, selection)
    _print_totals(out, summary)


def _print_totals(out: Console, summary: Summary) -> None:
    sources, counts = summary.sources, summary.clips.counts
    broken = f", {counted(sources.packets_broken, 'broken packet')} skipped" if sources.packets_broken else ""
    short = f", {counted(counts['too_short'], 'shot')} too short" if counts["too_short"] else ""
    long = f", {counts['too_long']} too long" if counts["too_long"] else ""
    lost = counts["outside"] + counts["empty"]
    spans = f", {counted(lost, 'span')} without frames" if lost else ""
    again = tried_again(summary.clips.kinds)
    uncut = f", {counts['failed']} could not be cut{again and f' ({again})'}" if counts["failed"] else ""
    lines = [
        ("sources", f"{sources.ok} of {sources.given} usable, {footage(sources.seconds)}{broken}"),
        ("clips", f"{counts['ok']}, {footage(summary.clips.seconds['ok'])}{short}{long}{spans}{uncut}"),
        *((each.name, _annotation_line(each)) for each in summary.annotations if each.failed),
        *([("copies", _duplicates_line(summary.duplicates))] if summary.duplicates else []),
        *((f"select {each.name}", f"{each.kept} kept, {footage(each.kept_seconds)}") for each in summary.selections),
        *(
            ("export" if each.name == "export" else f"export {each.name}", _export_line(each))
            for each in summary.exports
        ),
        ("dataset", path_of(summary.dataset)),
    ]
    for export in summary.exports:
        if export.path:
            lines += [("shards", path_of(export.path)), ("card", path_of(f"{export.path}/README.md"))]
    lines += [("note", note) for note in summary.notes]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        out.print(f"{label:<{width}}  {text}", soft_wrap=True)


def _annotation_line(annotation: AnnotationReport) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in annotation.kinds.items())
    again = tried_again(annotation.kinds)
    return (
        f"{counted(annotation.failed, 'clip')} failed ({kinds}){again and f'; {again}'}; such as: {annotation.message}"
    )


def tried_again(kinds: Mapping[str, int]) -> str:
    """Say which failures the next run tries again by itself, and which it tries if asked. ``kinds``: how many there are."""
    total = sum(kinds.values())
    alone = sum(count for kind, count in kinds.items() if kind in RETRIED)
    asked = total - alone - sum(kinds.get(kind, 0) for kind in (NotCopied.kind, Refused.kind))  # a flag lets these in

    def them(count: int) -> str:
        return ("it" if total == 1 else "them") if count == total else f"{count} of them"

    lines = [f"the next run tries {them(alone)} again by itself"] * bool(alone)
    return "; ".join([*lines, *[f"--retry-failed tries {them(asked)} again"] * bool(asked)])


def print_duplicates(report: DuplicatesReport, as_json: bool) -> None:
    if as_json:
        say_json(asdict(report))
        return
    table = grid(f"copies among {counted(report.clips, 'clip')}")
    table.add_column("clips")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    rows = {f"copies: {kind}": count for kind, count in report.copies.items()}
    rows["without a copy"] = report.clips - sum(report.copies.values())
    if report.groups:
        rows["would go if one of each group stayed"] = report.spare
    if report.moved:
        rows["in another split, with their copies"] = report.moved
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", share(count, report.clips))
    stdout().print(table)
    if report.groups:
        say(f"{counted(report.groups, 'group')}, the largest of {counted(report.largest_group, 'clip')}")
    for line in _split_lines(report):
        say(line)


def _duplicates_line(report: DuplicatesReport) -> str:
    if not report.groups:
        return "none"
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.copies.items())
    moved = f"; {counted(report.moved, 'clip')} in another split, with the copies" if report.moved else ""
    return (
        f"{counted(sum(report.copies.values()), 'clip')} in {counted(report.groups, 'group')} ({kinds}), of which "
        f"{report.spare} would go if one of each stayed{moved}"
    )


def _split_lines(report: DuplicatesReport) -> Iterator[str]:
    """Yield what people should know of the splits."""
    if report.overruled:
        yield f"{counted(report.overruled, 'clip')} not in the split that a manifest names, since copies are in another"
    if report.clips and report.largest_split_set > MOST_TOGETHER * report.clips and report.moved:
        yield (
            f"{share(report.largest_split_set, report.clips)} of clips hang together: splits may be far from "
            "the shares asked for"
        )


def print_selection(selection: SelectionReport, as_json: bool) -> None:
    if as_json:
        say_json(asdict(selection))
    else:
        _print_selection(stdout(), selection)
        if not selection.exports:
            say(f"no export of the recipe takes selection {selection.name}; --name names another selection")


def _print_selection(out: Console, selection: SelectionReport) -> None:
    out.print(_selection_table(selection))
    for column, limit in selection.limits.items():
        if "not_applied" in limit:
            out.print(f"{column}: no rule applied to {limit['not_applied']}", soft_wrap=True)


def _selection_table(selection: SelectionReport) -> Table:
    from dailies.pipelines.reports import broken_limit  # with all of curation, which sql has no need of

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
    say(f"selection {export.selection}: {_export_line(export)}")
    if export.path:
        say(path_of(export.path))


def _export_line(export: ExportReport) -> str:
    if export.path is None and export.failed:
        return f"none: {counted(export.failed, 'clip')} could not be extracted; are their sources still there?"
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
    again = tried_again(export.kinds)
    failed = f", {export.failed} could not be extracted{why}{again and f'; {again}'}" if export.failed else ""
    return f"{splits}; {footage(export.seconds)}, {export.bytes / 1e6:.1f} MB{lost}{failed}; {_origin(export)}"


def _origin(export: ExportReport) -> str:
    """Return how many of the clips were extracted by this command."""
    if not export.extracted and not export.taken_over:
        return "as it was"
    if not export.taken_over:
        return f"{export.extracted:,} extracted"
    return f"{export.extracted:,} extracted, {export.taken_over:,} taken over from earlier exports"


def print_cuts(report: CutsReport, as_json: bool) -> None:
    """Print the cuts to stdout, and the videos that could not be read to stderr."""
    if as_json:
        say_json({path: [asdict(cut) for cut in cuts] for path, cuts in report.cuts.items()})
    else:
        for path, cuts in report.cuts.items():
            table = grid(f"{path}: {counted(len(cuts), 'cut')}")
            for name in ("frame", "end", "kind"):
                table.add_column(name, justify="left" if name == "kind" else "right")
            for cut in cuts:
                table.add_row(str(cut.frame), str(cut.end), cut.kind)
            stdout().print(table)
    for path, reason in report.failures.items():
        say(f"dailies: {path}: {reason}", err=True)


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
