"""The commands that look at a dataset: info, diff, show and sql."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.curation.errors import UsageError
from dailies.pipelines.cli.lazy_pandas import keep_pandas_out
from dailies.pipelines.cli.options import Dataset, Json


def info(dataset: Dataset, as_json: Json = False) -> None:
    """Say what a dataset holds: sources, clips, selections, exports, its size, and what is missing.

    Examples:
    dailies info data
    """
    keep_pandas_out()
    from dailies.pipelines.cli.look_tables import print_overview
    from dailies.pipelines.overview import overview

    print_overview(overview(dataset), as_json)


def diff(
    dataset: Dataset,
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a selection.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another.")],
    as_json: Json = False,
) -> None:
    """Compare two selections: what both keep, what one alone keeps, and why the other drops it.

    Examples:
    dailies diff data main captioned
    """
    keep_pandas_out()
    from dailies.pipelines.cli.selection_tables import print_diff
    from dailies.pipelines.comparing import compare_selections

    print_diff(compare_selections(dataset, first, second), as_json)


def show(
    dataset: Dataset,
    item: Annotated[
        str | None,
        typer.Argument(
            metavar="CLIP|SOURCE", help="Id of a clip, or id, path, URL or file name of a source; none: a selection."
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE.png", help="Write the frames as a contact sheet.")
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            "--selection", metavar="NAME", help="Whose verdicts to show.", show_default="all; of clips, the last"
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", metavar="N", min=1, max=64, help="Frames of a clip, or clips of a reason.")
    ] = 8,
    as_json: Json = False,
) -> None:
    """Show a clip's or source's numbers, verdicts and frames, or what a selection kept and dropped.

    Examples:
    dailies show data
    dailies show data videos/a.mp4 --out a.png
    """
    keep_pandas_out()
    from dailies.pipelines.cli.look_tables import coloured, print_shown
    from dailies.pipelines.showing import show as look

    drawn = out is not None or (not as_json and coloured())
    shown = look(dataset, item, selection=selection, frames=frames, pictures=drawn)
    if out is not None:
        shown.save(out)
    print_shown(shown, out, as_json)


def sql(
    dataset: Dataset,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="DuckDB SQL; `show tables` lists the views.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as a JSON array.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print rows as CSV.")] = False,
    unrestricted: Annotated[
        bool, typer.Option("--unrestricted", help="Let the query read and write files and load extensions.")
    ] = False,
) -> None:
    """Query a dataset in SQL. Views: observations, clips, manifest, scores_*, captions_*, selection_*, export_*, runs."""
    if as_json and as_csv:
        raise UsageError("--json, --csv: two formats; give one")
    keep_pandas_out()
    from dailies.curation.tables import DatasetTables
    from dailies.curation.tables import query as run_query
    from dailies.pipelines.cli.rows import print_rows

    rows = run_query(DatasetTables.open(dataset), query, unrestricted=unrestricted)
    print_rows(rows, "json" if as_json else "csv" if as_csv else "table")
