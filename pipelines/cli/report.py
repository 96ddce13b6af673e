"""The commands that show what became of the clips: report, view and stats."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.pipelines.cli.lazy_pandas import keep_pandas_out
from dailies.pipelines.cli.options import Dataset, Json

Selection = Annotated[
    str | None,
    typer.Option(
        "--selection", metavar="NAME", help="Whose verdicts to show.", show_default="the last of the last run's recipe"
    ),
]


def report(
    dataset: Dataset,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.html",
            help="Where to write the page; it holds frames, so mind who sees it.",
            show_default="report.html in the dataset",
        ),
    ] = None,
    selection: Selection = None,
) -> None:
    """Write a page that shows what was kept and dropped, and why: one file, which opens from disk.

    It has the funnel, a histogram per score with what moving its limit would keep, clips beside each limit, captions,
    duplicates, failures, times and lineage. Withdrawing a source deletes the page in the dataset's own folder.

    Examples:
    dailies report data
    dailies report data --selection strict --out strict.html
    """
    keep_pandas_out()
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.cli.tables import path_of
    from dailies.pipelines.cli.terminal import say
    from dailies.pipelines.report import write_report

    say(f"report  {path_of(write_report(dataset, out, selection=selection, progress=progress_for(False)))}")


def view(
    dataset: Dataset,
    selection: Selection = None,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 0,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Serve the report live on 127.0.0.1, with clips that play; Ctrl-C ends it.

    The page is made anew when the dataset has changed. Clips that an export holds play; of others there are frames.

    Examples:
    dailies view data --open
    """
    keep_pandas_out()
    from dailies.pipelines.cli.terminal import say
    from dailies.pipelines.report import serve

    serving = serve(dataset, selection=selection, port=port)
    say(f"view  {serving.address}")
    say("Ctrl-C ends it", err=True)
    if show:
        import webbrowser

        webbrowser.open(serving.address)
    serving.run()


def stats(dataset: Dataset, selection: Selection = None, as_json: Json = False) -> None:
    """Print the funnel: what each rule dropped, and what was kept, in clips and length.

    Examples:
    dailies stats data
    dailies stats data --selection strict --json
    """
    keep_pandas_out()
    from dailies.pipelines.cli.report_tables import print_funnel
    from dailies.pipelines.report import stats as count

    print_funnel(count(dataset, selection=selection), as_json)
