"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dailies.curation.errors import DailiesError, UsageError
from dailies.pipelines.cli.zoo import zoo_app

app = typer.Typer(
    name="dailies",
    help="Raw video in; a curated, captioned dataset, a trained model and a zoo out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(zoo_app, name="zoo")

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: folder or URL that curate has written to.")]
RecipeName = Annotated[str, typer.Option("--recipe", "-r", metavar="NAME|FILE", help="Built-in recipe or YAML file.")]
Overrides = Annotated[
    list[str], typer.Option("--set", "-s", metavar="STEP.KEY=VALUE", help="Change one value of the recipe; repeatable.")
]
EngineName = Annotated[str, typer.Option("--engine", metavar="ray|local", help="Ray Data, or a plain loop.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command()
def curate(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="Files, folders, globs, or manifests (.parquet, .csv, .txt)."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DATASET", help="Folder or URL of the dataset.")],
    recipe: RecipeName = "default",
    set_: Overrides = [],  # noqa: B006
    engine: EngineName = "ray",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed sources and clips again.")] = False,
    as_json: Json = False,
) -> None:
    """Observe, cut, score, select and export: raw video in, training shards out. Run it again to go on after a stop."""
    from dailies.pipelines import run as room
    from dailies.pipelines.cli.tables import print_summary
    from dailies.pipelines.recipe import load_recipe

    made = load_recipe(recipe, set_)
    summary = room.curate(sources, out, made, engine=_engine(engine), retry_failed=retry_failed, quiet=as_json)
    print_summary(summary, as_json)
    if summary.all_failed:
        raise typer.Exit(1)


@app.command()
def cuts(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO…", help="Files, folders or globs.")],
    recipe: RecipeName = "default",
    set_: Overrides = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Find where shots meet. Frames are indexes in presentation order from 0."""
    from dailies.pipelines.cuts import find_cuts
    from dailies.pipelines.recipe import load_recipe

    found, failed = find_cuts(videos, load_recipe(recipe, set_), quiet=as_json)
    if as_json:
        print(json.dumps(found))
    else:
        from dailies.pipelines.cli.tables import print_cuts

        print_cuts(found)
    for path, reason in failed.items():
        print(f"dailies: {path}: {reason}", file=sys.stderr)
    if failed and not found:
        raise typer.Exit(1)


@app.command()
def select(
    dataset: Dataset,
    set_: Overrides = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", help="Which selection of the recipe.")] = "main",
    as_json: Json = False,
) -> None:
    """Judge the clips again under other rules; nothing is decoded or scored again."""
    from dailies.pipelines import run as room
    from dailies.pipelines.cli.tables import print_selection

    print_selection(room.select_again(dataset, name, set_), as_json)


@app.command()
def export(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET|EXPORT", help="A dataset; with --latents a folder that was exported.")
    ],
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", "-s", metavar="STEP.KEY=VALUE", help="Change the recipe, with --latents the training one."
        ),
    ] = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", help="Which export of the recipe.")] = "export",
    latents: Annotated[
        str | None,
        typer.Option(
            "--latents", metavar="RECIPE[:PHASE]", help="Encode an export's clips as this training phase asks."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FOLDER", help="Where the latents go.")] = None,
    views: Annotated[int, typer.Option("--views", min=1, help="Latents of so many windows of each clip.")] = 4,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="The models to encode with, as for train.")
    ] = None,
    vae: Annotated[
        str | None, typer.Option("--vae", metavar="MODEL", help="A VAE, in place of the one in --from.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text-encoder", metavar="MODEL", help="Likewise: of captions.")] = None,
    device: Annotated[str, typer.Option("--device", help="For latents: cpu, cuda:0, …; auto: a GPU if any.")] = "auto",
    engine: EngineName = "ray",
    as_json: Json = False,
) -> None:
    """Cut the selected clips out into training shards; or encode those of an export, for training that only reads."""
    if latents is not None:
        if out is None:
            raise UsageError("export --latents needs --out FOLDER")
        from dailies.pipelines.latents import Request, export_latents, print_latents

        parts = {"vae": vae, "text": text}
        request = Request(
            export=dataset, latents=latents, out=out, views=views, sets=set_, start=start, parts=parts, device=device
        )
        print_latents(export_latents(request, engine=_engine(engine), quiet=as_json), as_json)
        return
    given = {"--out": out, "--from": start, "--vae": vae, "--text-encoder": text}
    if extra := [flag for flag, value in given.items() if value is not None]:
        raise UsageError(f"{extra[0]} is for export --latents")
    from dailies.pipelines import run as room
    from dailies.pipelines.cli.tables import print_export

    print_export(room.export_again(dataset, name, set_, engine=_engine(engine), quiet=as_json), as_json)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="tiny, svd, finetune, lora, vae, or a FILE.py with a function recipe()."),
    ],
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", metavar="[NAME=]EXPORT", help="A folder that curate has exported; repeatable."),
    ] = [],  # noqa: B006
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Start from this: a diffusers folder, zoo:NAME or a hub id."),
    ] = None,
    vae: Annotated[
        str | None, typer.Option("--vae", metavar="MODEL", help="A VAE, in place of the one in --from.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text-encoder", metavar="MODEL", help="Likewise: of captions.")] = None,
    image: Annotated[
        str | None, typer.Option("--image-encoder", metavar="MODEL", help="Likewise: of shown frames.")
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", "-s", metavar="[PHASE.]FIELD=VALUE", help="Change the recipe; repeatable.")
    ] = [],  # noqa: B006
    phase: Annotated[str | None, typer.Option("--phase", help="Only this phase; all by default.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda:0, …; auto takes a GPU where there is one.")
    ] = "auto",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on Ray that share each batch.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with a run, begin none.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what it would cost, needs and lacks; --data is optional.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train image, video and high-quality phases on an export, each from the last one's checkpoint; or finetune."""
    from dailies.pipelines.train import Request, plan_run, train_run

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if recipe == "vae":
        if phase is not None:
            raise UsageError(f"--phase={phase}: train vae has no phases; leave it out")
        if dry_run:
            _plan_vae(start or vae, data, set_, as_json)
        else:
            _train_vae(start or vae, data, out, set_, device, workers, resume, say, as_json)
        return
    parts = {"vae": vae, "text": text, "image": image}
    request = Request(recipe=recipe, sets=set_, data=data, start=start, parts=parts, phase=phase)
    if dry_run:
        from dailies.pipelines.cli.plan_tables import print_plan

        print_plan(plan_run(request, say=say), as_json)
        return
    from dailies.pipelines.cli.tables import print_training

    print_training(train_run(request, out, resume=resume, device=device, workers=workers, say=say), as_json)


def _train_vae(
    start: str | None,
    data: list[str],
    out: str | None,
    sets: list[str],
    device: str,
    workers: int,
    resume: bool,
    say: Callable[[str], None],
    as_json: bool,
) -> None:
    """Run ``dailies train vae``: the temporal decoder alone, which has no phases."""
    from dailies.pipelines.cli.tables import print_vae
    from dailies.pipelines.train_vae import train_vae_run

    if start is None or len(data) != 1 or out is None:
        raise UsageError(
            "train vae needs --from MODEL, one --data EXPORT and --out FOLDER; with --dry-run only --from MODEL"
        )
    done = train_vae_run(start, data[0], out, sets=sets, device=device, workers=workers, resume=resume, say=say)
    print_vae(done, as_json)


def _plan_vae(start: str | None, data: list[str], sets: list[str], as_json: bool) -> None:
    """Run ``dailies train vae --dry-run``."""
    from dailies.pipelines.cli.plan_tables import print_vae_plan
    from dailies.pipelines.train_vae import plan_vae_run

    if start is None or len(data) > 1:
        raise UsageError("train vae --dry-run needs --from MODEL and at most one --data EXPORT")
    print_vae_plan(plan_vae_run(start, data[0] if data else None, sets=sets), as_json)


@app.command()
def quickstart(
    out: Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="Where everything goes.")] = "quickstart",
    videos: Annotated[int, typer.Option("--videos", min=6, help="How many videos to render.")] = 18,
    seed: Annotated[int, typer.Option("--seed", help="Of the rendered world.")] = 0,
    engine: EngineName = "ray",
) -> None:
    """Render a world, curate, caption, train in three phases, publish, and sample a video. Offline, on two CPU cores."""
    from dailies.pipelines.quickstart import quickstart as run

    run(out, videos=videos, seed=seed, engine=_engine(engine))


@app.command()
def sql(
    dataset: Dataset,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="DuckDB SQL; `show tables` lists the views.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as a JSON array.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print rows as CSV.")] = False,
) -> None:
    """Ask the dataset's tables in SQL: observations, clips, scores_*, selection_*, export_*, runs."""
    from dailies.curation.tables.dataset import Dataset as Opened
    from dailies.curation.tables.sql import query as ask
    from dailies.pipelines.cli.tables import print_table

    print_table(ask(Opened.open(dataset), query), "json" if as_json else "csv" if as_csv else "table")


@app.command()
def verify(
    dataset: Dataset,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every exported clip too.")] = False,
    as_json: Json = False,
) -> None:
    """Check that tables, keys, spans and shards hold together. Exit code 1 if something does not."""
    from dailies.pipelines.cli.tables import print_problems
    from dailies.pipelines.maintenance import verify_dataset

    problems = verify_dataset(dataset, deep=deep)
    print_problems(dataset, problems, as_json)
    if problems:
        raise typer.Exit(1)


@app.command()
def gc(
    dataset: Dataset,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="HOURS", help="Keep younger files. Default 0; 24 on a URL.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove what no table refers to: parts a killed run left behind, old versions, unfinished exports."""
    from dailies.pipelines.cli.tables import print_collected
    from dailies.pipelines.maintenance import collect

    print_collected(collect(dataset, dry_run=dry_run, older_than=older_than), dry_run, as_json)


@app.command()
def withdraw(
    dataset: Dataset,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="Paths, URLs or source ids.")],
    as_json: Json = False,
) -> None:
    """Delete sources from every table and export, as for a takedown."""
    from dailies.pipelines.cli.tables import print_withdrawn
    from dailies.pipelines.maintenance import take_down

    print_withdrawn(take_down(dataset, sources), as_json)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the built-in recipes, observers, detectors, scorers and captioners."""
    from dailies.pipelines.cli.tables import print_recipes

    print_recipes(as_json)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        print(f"dailies {version('dailies')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _engine(name: str) -> Any:
    if name not in ("ray", "local"):
        raise UsageError(f"unknown engine {name!r}; allowed: ray, local")
    return name


# Typer carries its own copy of click, whose error for misuse it shows only as the base of this one.
_Misused: Any = typer.BadParameter.__base__


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a mistake in the request is one line and exit code 2, an interrupt says how to go on."""
    try:
        code = app(arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except _Misused as error:  # a missing argument, an unknown option
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        print(f"dailies: {' '.join(error.format_message().split())}{where}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        print("dailies: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except UsageError as error:
        print(f"dailies: {error}", file=sys.stderr)
        sys.exit(2)
    except DailiesError as error:
        print(f"dailies: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("dailies: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
