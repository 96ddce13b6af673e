"""The commands that keep a dataset in order: verify, gc and withdraw."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.curation.progress import progress_in_force, reporting
from dailies.pipelines.cli.lazy_pandas import keep_pandas_out
from dailies.pipelines.cli.options import Dataset, Json
from dailies.pipelines.cli.terminal import say


def verify(
    dataset: Dataset,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every exported clip too.")] = False,
    as_json: Json = False,
) -> None:
    """Check that a dataset's tables, keys, spans and shards agree. Exit code 1 if they do not.

    Examples:
    dailies verify data
    dailies verify data --deep
    """
    keep_pandas_out()
    from dailies.pipelines.cli.curation_tables import print_problems
    from dailies.pipelines.cli.next_steps import after_verify, print_next
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.maintenance import verify_dataset

    with reporting(progress_for(as_json)), progress_in_force()("verify", None, "tables and exports"):
        problems = verify_dataset(dataset, deep=deep)
    print_problems(dataset, problems, as_json)
    if not as_json:
        print_next(after_verify(dataset, problems, deep=deep))
    if problems:
        raise typer.Exit(1)


def gc(
    dataset: Dataset,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="HOURS",
            min=0,
            help="Keep younger files.",
            show_default="0; 24 for a URL",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove files that no table refers to: leftovers of killed runs, old versions, unfinished exports.

    Examples:
    dailies gc data --dry-run
    """
    keep_pandas_out()
    from dailies.pipelines.cli.curation_tables import print_collected
    from dailies.pipelines.cli.next_steps import after_gc, print_next
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.maintenance import collect

    with reporting(progress_for(as_json)), progress_in_force()("gc", None, "looking for files"):
        collected = collect(dataset, dry_run=dry_run, older_than=older_than)
    print_collected(collected, dry_run, as_json)
    if not as_json:
        print_next(after_gc(dataset, dry_run=dry_run))


def withdraw(
    dataset: Dataset,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Paths, URLs or source ids.")],
    as_json: Json = False,
) -> None:
    """Delete sources from every table and export, as for a takedown, and keep them out from then on.

    Examples:
    dailies withdraw data videos/a.mp4
    """
    keep_pandas_out()
    from dailies.pipelines.cli.curation_tables import print_withdrawn
    from dailies.pipelines.cli.next_steps import after_withdraw, print_next
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.maintenance import bytes_left, take_down

    with reporting(progress_for(as_json)), progress_in_force()("withdraw", None, "rows"):
        withdrawn = take_down(dataset, sources)
    print_withdrawn(withdrawn, as_json)
    if left := bytes_left(dataset):
        say(f"dailies: {left}", err=True)
    if not as_json:
        print_next(after_withdraw(dataset))
