"""``dailies zoo``: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dailies.curation.errors import Damaged, UsageError
from dailies.curation.progress import reporting
from dailies.pipelines.cli.completion import choice, named, zoo_models
from dailies.pipelines.cli.help import ENGINE, INPUT, OUTPUT, WORK, Command, Group
from dailies.pipelines.cli.options import Json
from dailies.pipelines.cli.terminal import say, say_json
from dailies.zoo.default import DEFAULT_ZOO, ENV

if TYPE_CHECKING:
    from dailies.zoo.entry import ZooEntry

zoo_app = typer.Typer(
    name="zoo",
    help="Publish a training run as a model; list, show, run and verify models.",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

OF_MODEL = "the model's"

Zoo = Annotated[
    str,
    typer.Option(
        "--zoo",
        metavar="DIR",
        envvar=ENV,
        show_default=True,
        help="Folder of the zoo.",
        rich_help_panel=INPUT,
    ),
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a model; dailies zoo list shows them.", **named(zoo_models))
]


@zoo_app.command("publish", cls=Command)
def publish_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the model.")],
    to: Annotated[
        str, typer.Option("--to", "--zoo", metavar="DIR", envvar=ENV, show_default=True, help="Folder of the zoo.")
    ] = DEFAULT_ZOO,
    phase: Annotated[
        str | None,
        typer.Option("--phase", metavar="PHASE", help="Phase to publish.", show_default="the last one that is done"),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="Averaged weights, or those of the last step.", **choice("ema|last"))
    ] = "ema",
    licence: Annotated[
        str | None,
        typer.Option("--licence", metavar="SPDX", help="Licence of the weights.", show_default="the recipe's"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish a training run as a model: a diffusers folder with safetensors, a card and a lock.

    Examples:
    dailies zoo publish run --as my-model
    dailies zoo publish run --as my-model --phase hq --weights last
    """
    from dailies.pipelines.cli.progress import progress_for
    from dailies.zoo.publishing import publish

    with reporting(progress_for(as_json)):
        entry = publish(run, name=name, to=to, phase=phase, which=weights, licence=licence)
    if as_json:
        say(entry.to_json().rstrip("\n"))
        return
    from dailies.pipelines.cli.zoo_tables import print_entry

    print_entry(entry, Path(to).expanduser().absolute() / name)


@zoo_app.command("list", cls=Command)
def list_models(zoo: Zoo = DEFAULT_ZOO, as_json: Json = False) -> None:
    """List the models of the zoo and those that ship with dailies."""
    from dailies.zoo.catalog import ENTRIES
    from dailies.zoo.store import Store

    store = Store(zoo)
    entries, damaged = store.entries()
    if as_json:
        rows = [_row(entry) for entry in [*entries.values(), *ENTRIES.values()]]
        say_json({"zoo": str(store.folder), "models": rows, "damaged": damaged})
        return
    from dailies.pipelines.cli.zoo_tables import print_entries

    print_entries(str(store.folder), list(entries.values()), list(ENTRIES.values()), damaged)


@zoo_app.command("show", cls=Command)
def show_model(name: Name, zoo: Zoo = DEFAULT_ZOO, as_json: Json = False) -> None:
    """Show one model: what it makes, where it came from, where its files are."""
    from dailies.zoo.catalog import ENTRIES
    from dailies.zoo.formats.references import BUILTIN
    from dailies.zoo.store import Store

    store = Store(zoo)
    entry = ENTRIES.get(name) or store.entry(name)
    folder = BUILTIN / name if name in ENTRIES else store.folder / name
    if as_json:
        say_json({**_row(entry), "folder": str(folder)})
        return
    from dailies.pipelines.cli.zoo_tables import print_entry

    print_entry(entry, folder)


@zoo_app.command("run", cls=Command)
def run_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A model's name, or a published folder.",
            rich_help_panel=INPUT,
            **named(zoo_models),
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE.mp4", help="The video to write.", rich_help_panel=OUTPUT)
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="What the video shows, for a text-to-video model.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    expanded: Annotated[
        bool,
        typer.Option(
            "--expand",
            help="Have the prompt written as a long caption first, as dailies expand does.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            metavar="FILE",
            help="First frame, for an image-to-video model.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    zoo: Zoo = DEFAULT_ZOO,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the noise.", rich_help_panel=WORK)] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            help="Sampling steps: more are finer and slower.",
            show_default=OF_MODEL,
            rich_help_panel=WORK,
        ),
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            "--guidance",
            metavar="W|FIRST:LAST",
            help="Guidance scale, or that of the first and of the last frame.",
            show_default=OF_MODEL,
            rich_help_panel=WORK,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="WxH", help="Width and height in px.", show_default=OF_MODEL, rich_help_panel=WORK
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option("--frames", metavar="N", help="Number of frames.", show_default=OF_MODEL, rich_help_panel=WORK),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", metavar="N", help="Frames per second.", show_default=OF_MODEL, rich_help_panel=WORK),
    ] = None,
    motion_bucket: Annotated[
        int | None,
        typer.Option(
            "--motion-bucket",
            metavar="N",
            help="How much should move, 0 to 255.",
            show_default=OF_MODEL,
            rich_help_panel=WORK,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Where to run.",
            show_default="cuda where there is a GPU",
            rich_help_panel=ENGINE,
            **choice("cuda|cpu"),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sample a video. A text-to-video model takes a --prompt, an image-to-video model an --image.

    Examples:
    dailies zoo run my-model --prompt "a red ball rolls" --out ball.mp4
    dailies zoo run my-model --image first.png --out moving.mp4 --seed 1
    """
    from dailies.pipelines.cli.progress import progress_for
    from dailies.zoo.generate import run

    if expanded:
        prompt = _expanded(prompt, seed, as_json)
    with reporting(progress_for(as_json)):
        result = run(
            name,
            out=out,
            zoo=zoo,
            prompt=prompt,
            image=image,
            seed=seed,
            steps=steps,
            guidance=_guidance(guidance),
            size=_size(size),
            frames=frames,
            fps=fps,
            motion_bucket=motion_bucket,
            device=device,
        )
    if as_json:
        say_json(asdict(result))
        return
    from dailies.pipelines.cli.next_steps import after_sample, print_next
    from dailies.pipelines.cli.zoo_tables import print_sample

    print_sample(result)
    print_next(after_sample(name, zoo))


@zoo_app.command("verify", cls=Command)
def verify_models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Name of a model.", show_default="all of them", **named(zoo_models)),
    ] = None,
    zoo: Zoo = DEFAULT_ZOO,
    as_json: Json = False,
) -> None:
    """Check every file against its size and SHA-256, offline. Exit code 1 if one differs."""
    from dailies.pipelines.cli.progress import progress_for
    from dailies.zoo.formats import lock
    from dailies.zoo.store import Store

    problems: dict[str, list[dict[str, str]]] = {}
    store = Store(zoo)
    for model in [name] if name is not None else store.names():
        try:
            with reporting(progress_for(as_json)):
                problems[model] = [asdict(problem) for problem in lock.verify(store.path(model))]
            store.entry(model)
        except Damaged as error:
            problems.setdefault(model, []).append({"path": "", "what": str(error)})
    if as_json:
        say_json(problems)
    else:
        from dailies.pipelines.cli.zoo_tables import print_verified

        print_verified(str(store.folder), problems)
    if any(problems.values()):
        raise typer.Exit(1)


def _row(entry: ZooEntry) -> dict[str, Any]:
    return {**asdict(entry), "kind": entry.kind}


def _expanded(prompt: str | None, seed: int, as_json: bool) -> str:
    """Return a prompt as a long caption, and say it unless JSON will."""
    if prompt is None:
        raise UsageError("expand: there is no prompt to expand; give one by --prompt")
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.expanding import expand

    (expansion,) = expand(prompt, seed=seed, progress=progress_for(as_json)).expansions
    if not as_json:
        say(f"prompt: {expansion.text}", err=True)
    return expansion.text


def _guidance(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        return (float(first), float(last)) if colon else float(first)
    except ValueError:
        raise UsageError(f"--guidance={text}: not a number; use a scale such as 2.5, or FIRST:LAST") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not cross or not (width + height).isdecimal() or not width or not height:
        raise UsageError(f"--size={text}: not a size; use WIDTHxHEIGHT in px, such as 256x128")
    return int(width), int(height)
