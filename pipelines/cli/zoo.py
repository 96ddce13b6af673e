"""``dailies zoo``: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dailies.curation.errors import UsageError

if TYPE_CHECKING:
    from dailies.zoo.entry import ZooEntry

zoo_app = typer.Typer(
    name="zoo",
    help="Models: publish a training run, list what is there, run one.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Zoo = Annotated[
    str,
    typer.Option(
        "--zoo",
        metavar="DIR",
        envvar="DAILIES_ZOO",
        show_default=True,
        help="Where models are published and looked up.",
    ),
]
DEFAULT = "~/.cache/dailies/zoo"
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name: see dailies zoo list.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@zoo_app.command()
def publish(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="What to call the model.")],
    to: Annotated[
        str, typer.Option("--to", "--zoo", metavar="DIR", envvar="DAILIES_ZOO", show_default=True, help="The zoo.")
    ] = DEFAULT,
    phase: Annotated[str | None, typer.Option("--phase", help="Which phase; by default the last one done.")] = None,
    weights: Annotated[
        str, typer.Option("--weights", metavar="ema|last", help="Averaged weights, or the last.")
    ] = "ema",
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="SPDX", help="Of the weights; by default the recipe's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a model of a training run: a diffusers folder with safetensors, a card and a lock."""
    from dailies.zoo.publish import publish as room

    entry = room(run, name=name, to=to, phase=phase, which=weights, licence=licence)
    if as_json:
        print(entry.to_json(), end="")
        return
    from dailies.pipelines.cli.zoo_tables import print_published

    print_published(entry, Path(to).expanduser().absolute() / name)


@zoo_app.command("list")
def list_(zoo: Zoo = DEFAULT, as_json: Json = False) -> None:
    """List the models of the zoo and those that ship with dailies."""
    from dailies.zoo.catalog import ENTRIES
    from dailies.zoo.store import Store

    store = Store(zoo)
    entries, damaged = store.entries()
    if as_json:
        rows = [_row(entry) for entry in [*entries.values(), *ENTRIES.values()]]
        print(json.dumps({"zoo": str(store.folder), "models": rows, "damaged": damaged}))
        return
    from dailies.pipelines.cli.zoo_tables import print_entries

    print_entries(str(store.folder), list(entries.values()), list(ENTRIES.values()), damaged)


@zoo_app.command()
def show(name: Name, zoo: Zoo = DEFAULT, as_json: Json = False) -> None:
    """Show one model: what it makes, where it came from, where it lies."""
    from dailies.zoo.catalog import ENTRIES
    from dailies.zoo.formats.references import BUILTIN
    from dailies.zoo.store import Store

    store = Store(zoo)
    entry = ENTRIES.get(name) or store.entry(name)
    folder = BUILTIN / name if name in ENTRIES else store.folder / name
    if as_json:
        print(json.dumps({**_row(entry), "folder": str(folder)}))
        return
    from dailies.pipelines.cli.zoo_tables import print_entry

    print_entry(entry, folder)


@zoo_app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or a published folder.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE.mp4", help="The video to write.")],
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to make: text-to-video.")] = None,
    image: Annotated[
        str | None, typer.Option("--image", "-i", metavar="FILE", help="First frame: image-to-video.")
    ] = None,
    zoo: Zoo = DEFAULT,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Of sampling; more is finer and slower.")] = None,
    guidance: Annotated[
        str | None, typer.Option("--guidance", metavar="W|FIRST:LAST", help="Weight; or of first and last frame.")
    ] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="In px; the model's by default.")] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="How many; the model's by default.")] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frames per second; the model's by default.")] = None,
    motion_bucket: Annotated[
        int | None, typer.Option("--motion-bucket", help="0 to 255: how much should move.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="cuda|cpu", help="CUDA by default, if any.")] = None,
    as_json: Json = False,
) -> None:
    """Make a video: text-to-video takes a --prompt, image-to-video an --image."""
    from dailies.zoo.run import run as room

    made = room(
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
        print(json.dumps(asdict(made)))
        return
    from dailies.pipelines.cli.zoo_tables import print_made

    print_made(made)


@zoo_app.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model; all of them by default.")] = None,
    zoo: Zoo = DEFAULT,
    as_json: Json = False,
) -> None:
    """Check every file against its size and SHA-256, offline. Exit code 1 if one differs."""
    from dailies.curation.errors import Damaged
    from dailies.zoo.formats import lock
    from dailies.zoo.store import Store

    found: dict[str, list[dict[str, str]]] = {}
    store = Store(zoo)
    for one in [name] if name is not None else store.names():
        folder = store.path(one)
        try:
            found[one] = [asdict(problem) for problem in lock.verify(folder)]
            store.entry(one)
        except Damaged as error:
            found.setdefault(one, []).append({"path": "", "what": str(error)})
    if as_json:
        print(json.dumps(found))
    else:
        from dailies.pipelines.cli.zoo_tables import print_verified

        print_verified(str(store.folder), found)
    if any(found.values()):
        raise typer.Exit(1)


def _row(entry: ZooEntry) -> dict[str, Any]:
    return {**asdict(entry), "kind": entry.kind}


def _guidance(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        return (float(first), float(last)) if colon else float(first)
    except ValueError:
        raise UsageError(f"--guidance {text!r}: a number, or FIRST:LAST") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not cross or not (width + height).isdecimal() or not width or not height:
        raise UsageError(f"--size {text!r}: WIDTHxHEIGHT in px, such as 256x128")
    return int(width), int(height)
