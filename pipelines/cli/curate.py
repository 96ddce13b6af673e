"""The commands from videos to training shards: curate, cuts, dedup, select and export."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.curation.errors import UsageError
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.curation.progress import reporting
from dailies.pipelines.cli.help import INPUT, OUTPUT, WORK
from dailies.pipelines.cli.lazy_pandas import keep_pandas_out
from dailies.pipelines.cli.options import (
    AllowLocal,
    AllowPrivateHosts,
    Dataset,
    Device,
    EngineName,
    From,
    Json,
    NoLinks,
    Overrides,
    PrivateSources,
    RecipeName,
    TextEncoder,
    Vae,
    Workers,
    parse_engine,
    print_notes,
)

LATENTS = "With --latents"


def curate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, URLs, or manifests (.parquet, .csv, .tsv, .jsonl, .txt).",
            rich_help_panel=INPUT,
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="DATASET", help="Folder or URL of the dataset.", rich_help_panel=OUTPUT),
    ],
    recipe: RecipeName = "default",
    set_: Overrides = [],  # noqa: B006
    engine: EngineName = "auto",
    workers: Workers = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try failed sources and clips again.", rich_help_panel=WORK),
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(
            "--column", metavar="NAME", help="The manifests' column that names the videos.", rich_help_panel=INPUT
        ),
    ] = None,
    readmit: Annotated[
        list[str],
        typer.Option(
            "--readmit",
            metavar="PATH",
            help="Let in a source that was withdrawn; repeatable.",
            rich_help_panel=INPUT,
        ),
    ] = [],  # noqa: B006
    allow_local: AllowLocal = False,
    allow_private_hosts: AllowPrivateHosts = False,
    no_links: NoLinks = False,
    private_sources: PrivateSources = False,
    as_json: Json = False,
) -> None:
    """Turn raw video into training shards: observe, cut, score, select, export. Repeat the command to resume.

    Examples:
    dailies curate videos/ --out data
    dailies curate videos/ --out data --recipe captioned
    dailies curate list.csv --out data --set main.rules.motion.min=0.5
    dailies curate s3://bucket/videos --out s3://bucket/data
    """
    from dailies.pipelines.recipes.recipe import load_recipe

    loaded = load_recipe(recipe, set_)  # before all else is imported: a misspelled key is refused at once
    print_notes(loaded.notes)
    if not loaded.runs_own_code:
        keep_pandas_out()
    from dailies.pipelines import run
    from dailies.pipelines.cli.curation_tables import print_summary
    from dailies.pipelines.cli.next_steps import after_curate, print_next
    from dailies.pipelines.cli.progress import progress_for

    summary = run.curate(
        sources,
        out,
        loaded,
        engine=parse_engine(engine),
        workers=workers,
        retry_failed=retry_failed,
        column=column,
        readmit=readmit,
        policy=SourcePolicy(local=allow_local, private_hosts=allow_private_hosts),
        follow_links=not no_links,
        private_sources=private_sources,
        progress=progress_for(as_json),
    )
    print_summary(summary, as_json)
    if not as_json:
        print_next(after_curate(summary, sources))
    if summary.all_failed:
        raise typer.Exit(1)


def cuts(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Files, folders or globs.")],
    recipe: RecipeName = "default",
    set_: Overrides = [],  # noqa: B006
    allow_local: AllowLocal = False,
    allow_private_hosts: AllowPrivateHosts = False,
    no_links: NoLinks = False,
    as_json: Json = False,
) -> None:
    """Find where shots meet, without a dataset. Frames are counted from 0, in the order they are shown.

    Examples:
    dailies cuts video.mp4
    dailies cuts videos/ --set cut.hard=0.3 --json
    """
    from dailies.pipelines.recipes.recipe import load_recipe

    loaded = load_recipe(recipe, set_)
    print_notes(loaded.notes)
    keep_pandas_out()  # it scores nothing
    from dailies.pipelines.cli.curation_tables import print_cuts
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.cuts import find_cuts

    report = find_cuts(
        videos,
        loaded,
        policy=SourcePolicy(local=allow_local, private_hosts=allow_private_hosts),
        follow_links=not no_links,
        progress=progress_for(as_json),
    )
    print_cuts(report, as_json)
    if report.failures and not report.cuts:
        raise typer.Exit(1)


def dedup(
    dataset: Dataset,
    set_: Overrides = [],  # noqa: B006
    engine: EngineName = "auto",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Group copies of clips, and keep each group in one split; nothing is decoded again.

    Examples:
    dailies dedup data
    dailies dedup data --set dedup.perceptual.distance=0.2
    """
    keep_pandas_out()
    from dailies.pipelines.again import dedup_again
    from dailies.pipelines.cli.curation_tables import print_duplicates
    from dailies.pipelines.cli.next_steps import after_dedup, print_next
    from dailies.pipelines.cli.progress import progress_for

    report = dedup_again(dataset, set_, engine=parse_engine(engine), workers=workers, progress=progress_for(as_json))
    print_duplicates(report, as_json)
    if not as_json:
        print_next(after_dedup(dataset, report))


def select(
    dataset: Dataset,
    set_: Overrides = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the selection in the recipe.")] = "main",
    preview: Annotated[
        bool, typer.Option("--preview", help="Say what each limit would keep, and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Select clips again under other rules; nothing is decoded or scored again.

    Examples:
    dailies select data --set main.rules.motion.min=0.5
    dailies select data --preview --set main.rules.motion.min=0.5
    dailies select data --set main.rules.manifest.rating.min=3
    """
    keep_pandas_out()
    if preview:
        from dailies.pipelines.again import preview_selection
        from dailies.pipelines.cli.selection_tables import print_preview

        print_preview(preview_selection(dataset, name, set_), as_json)
        return
    from dailies.pipelines.again import select_again
    from dailies.pipelines.cli.curation_tables import print_selection
    from dailies.pipelines.cli.next_steps import after_select, print_next
    from dailies.pipelines.cli.progress import progress_for

    with progress_for(as_json)("select", None, name):
        report = select_again(dataset, name, set_)
    print_selection(report, as_json)
    if not as_json:
        print_next(after_select(dataset, report))


def export(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|EXPORT",
            help="A dataset; with --latents, the folder of an export.",
            rich_help_panel=INPUT,
        ),
    ],
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            "-s",
            metavar="STEP.KEY=VALUE",
            help="Change one value of the recipe (with --latents, of the training recipe); repeatable.",
            rich_help_panel=WORK,
        ),
    ] = [],  # noqa: B006
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Name of the export in the recipe.", rich_help_panel=WORK),
    ] = "export",
    latents: Annotated[
        str | None,
        typer.Option(
            "--latents",
            metavar="RECIPE[:PHASE]",
            help="Encode the clips of an export for this phase of training.",
            rich_help_panel=LATENTS,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where the latents go.", rich_help_panel=LATENTS),
    ] = None,
    views: Annotated[
        int,
        typer.Option("--views", metavar="N", min=1, help="Windows to encode per clip.", rich_help_panel=LATENTS),
    ] = 4,
    start: From = None,
    vae: Vae = None,
    text: TextEncoder = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    workers: Workers = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try clips again that an export which exists lacks.", rich_help_panel=WORK),
    ] = False,
    allow_private_hosts: AllowPrivateHosts = False,
    sources: Annotated[
        list[str],
        typer.Option(
            "--sources",
            metavar="SOURCE",
            help="Sources of the dataset by whole URLs, such as a manifest signed anew; repeatable.",
            rich_help_panel=INPUT,
        ),
    ] = [],  # noqa: B006
    column: Annotated[
        str | None,
        typer.Option(
            "--column", metavar="NAME", help="Column of --sources that names the videos.", rich_help_panel=INPUT
        ),
    ] = None,
    private_sources: PrivateSources = False,
    as_json: Json = False,
) -> None:
    """Write the selected clips as training shards; with --latents, encode the clips of an export.

    With --latents, training only reads latents and text embeddings. --out, --views, --from, --vae, --text-encoder and
    --device are for --latents.

    Examples:
    dailies export data --set export.max_short_side=256
    dailies export EXPORT --latents finetune --from MODEL --out latents
    """
    from dailies.pipelines.cli.progress import progress_for

    progress, policy = progress_for(as_json), SourcePolicy(private_hosts=allow_private_hosts)
    if latents is None:
        for flag, value in {"--out": out, "--from": start, "--vae": vae, "--text-encoder": text}.items():
            if value is not None:
                raise UsageError(f"{flag}={value}: only export --latents takes it; add --latents RECIPE[:PHASE]")
        keep_pandas_out()
        from dailies.pipelines.again import export_again
        from dailies.pipelines.cli.curation_tables import print_export
        from dailies.pipelines.cli.next_steps import after_export, print_next

        report = export_again(
            dataset,
            name,
            set_,
            engine=parse_engine(engine),
            workers=workers,
            retry_failed=retry_failed,
            policy=policy,
            sources=sources,
            column=column,
            private_sources=private_sources,
            progress=progress,
        )
        print_export(report, as_json)
        if not as_json:
            print_next(after_export(dataset, report))
        return
    if retry_failed:
        raise UsageError("--retry-failed: not with --latents; only clips of a dataset are tried again")
    of_dataset = {"--sources": sources, "--column": column, "--private-sources": private_sources}
    for flag in (flag for flag, value in of_dataset.items() if value):
        raise UsageError(f"{flag}: not with --latents, which reads the clips of an export")
    if out is None:
        raise UsageError("--latents needs a folder for the latents; add --out FOLDER")
    from dailies.pipelines.cli.latents_tables import print_latents
    from dailies.pipelines.latents import LatentsRequest, export_latents

    parts = {"vae": vae, "text": text}
    request = LatentsRequest(
        export=dataset, latents=latents, out=out, views=views, sets=set_, start=start, parts=parts, device=device
    )
    with reporting(progress), opening_by(policy):
        encoded = export_latents(request, engine=parse_engine(engine), workers=workers, progress=progress)
    print_latents(encoded, as_json)
