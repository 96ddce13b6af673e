"""``dailies train``."""

from __future__ import annotations

from typing import Annotated

import typer

from dailies.curation.errors import UsageError
from dailies.curation.progress import reporting
from dailies.pipelines.cli.completion import named, phases
from dailies.pipelines.cli.help import ENGINE, INPUT, OUTPUT, WORK
from dailies.pipelines.cli.options import Device, From, ImageEncoder, Json, TextEncoder, Vae

RECIPES = ("tiny", "svd", "finetune", "lora", "vae", "captioner")


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="One of those below, or a FILE.py with a function recipe(), which is run.",
            rich_help_panel=INPUT,
            **named(lambda ctx: RECIPES),
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data", "-d", metavar="[NAME=]EXPORT", help="Folder of an export; repeatable.", rich_help_panel=INPUT
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.", rich_help_panel=OUTPUT)
    ] = None,
    start: From = None,
    vae: Vae = None,
    text: TextEncoder = None,
    image: ImageEncoder = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            "-s",
            metavar="[PHASE.]KEY=VALUE",
            help="Change one value of the recipe, of one phase, or with *. of all phases; repeatable.",
            rich_help_panel=WORK,
        ),
    ] = [],  # noqa: B006
    phase: Annotated[
        str | None,
        typer.Option(
            "--phase",
            metavar="PHASE",
            help="Train only this phase.",
            show_default="all",
            rich_help_panel=WORK,
            **named(phases),
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="N", min=1, help="Processes on Ray that share each batch.", rich_help_panel=ENGINE
        ),
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume an existing run; fail if there is none.", rich_help_panel=WORK),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only print the plan: cost, needs, and what is missing. Works without --data.",
            rich_help_panel=WORK,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a video model in phases on an export, each from the last one's checkpoint; or finetune one, or a captioner.

    Recipes:
    tiny        Three small phases at 80×48 px, for the rendered world. Needs
                captions.
    svd         All runs of Stable Video Diffusion, from images to camera motions.
                Needs captions, --from and many GPUs.
    finetune    All weights of an image-to-video model. Needs --from.
    lora        Adapters for an image-to-video model. Needs --from.
    vae         The temporal decoder of a VAE. Needs --from, one --data and --out.
    captioner   A captioner: a CoCa of open_clip's, or a video-language model of
                transformers'. Needs --from, one --data with captions, and --out.

    Examples:
    dailies train tiny --data data/exports/EXPORT --out run
    dailies train finetune --from MODEL --dry-run
    dailies train finetune --from MODEL --data data/exports/EXPORT --out run
    dailies train tiny --data EXPORT --out run --set image.steps=500
    dailies train captioner --from zoo:coca-world --data EXPORT --out run
    """
    if recipe in ("vae", "captioner") and phase is not None:
        raise UsageError(f"--phase={phase}: train {recipe} has no phases; leave it out")
    if recipe == "vae":
        if dry_run:
            _plan_vae(start or vae, data, set_, as_json)
        else:
            _train_vae(start or vae, data, out, set_, device, workers, resume, as_json)
        return
    if recipe == "captioner":
        for option, value in (("--vae", vae), ("--text-encoder", text), ("--image-encoder", image)):
            if value is not None:
                raise UsageError(f"{option}={value}: a captioner has none; leave it out")
        if dry_run:
            _plan_captioner(start, data, set_, as_json)
        else:
            _train_captioner(start, data, out, set_, device, workers, resume, as_json)
        return
    from dailies.pipelines.train import Request, plan_run, train_run

    parts = {"vae": vae, "text": text, "image": image}
    request = Request(recipe=recipe, sets=set_, data=data, start=start, parts=parts, phase=phase)
    if dry_run:
        from dailies.pipelines.cli.plan_tables import print_plan

        print_plan(plan_run(request, say=_say), as_json)
        return
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.cli.training_tables import print_training

    with reporting(progress_for(as_json)):
        phases = train_run(request, out, resume=resume, device=device, workers=workers, say=_say)
    print_training(phases, as_json)
    if out is not None and not as_json:
        from dailies.pipelines.cli.next_steps import after_training, print_next

        print_next(after_training(out))


def _train_vae(
    start: str | None,
    data: list[str],
    out: str | None,
    sets: list[str],
    device: str,
    workers: int,
    resume: bool,
    as_json: bool,
) -> None:
    """Run ``dailies train vae``: the temporal decoder alone, which has no phases."""
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.cli.training_tables import print_vae
    from dailies.pipelines.train_vae import train_vae_run

    if start is None or len(data) != 1 or out is None:
        raise UsageError(
            "train vae needs --from MODEL, one --data EXPORT and --out FOLDER; with --dry-run only --from MODEL"
        )
    with reporting(progress_for(as_json)):
        report = train_vae_run(start, data[0], out, sets=sets, device=device, workers=workers, resume=resume, say=_say)
    print_vae(report, as_json)


def _plan_vae(start: str | None, data: list[str], sets: list[str], as_json: bool) -> None:
    """Run ``dailies train vae --dry-run``."""
    from dailies.pipelines.cli.plan_tables import print_vae_plan
    from dailies.pipelines.train_vae import plan_vae_run

    if start is None or len(data) > 1:
        raise UsageError("train vae --dry-run needs --from MODEL and at most one --data EXPORT")
    print_vae_plan(plan_vae_run(start, data[0] if data else None, sets=sets), as_json)


def _train_captioner(
    start: str | None,
    data: list[str],
    out: str | None,
    sets: list[str],
    device: str,
    workers: int,
    resume: bool,
    as_json: bool,
) -> None:
    """Run ``dailies train captioner``, which has no phases."""
    from dailies.pipelines.cli.next_steps import after_training, print_next
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.cli.training_tables import print_captioner
    from dailies.pipelines.train_captioner import train_captioner_run

    if start is None or len(data) != 1 or out is None:
        raise UsageError(
            "train captioner needs --from MODEL, one --data EXPORT and --out RUN; with --dry-run only --from MODEL"
        )
    with reporting(progress_for(as_json)):
        report = train_captioner_run(
            start, data[0], out, sets=sets, device=device, workers=workers, resume=resume, say=_say
        )
    print_captioner(report, as_json)
    if not as_json:
        print_next(after_training(out))


def _plan_captioner(start: str | None, data: list[str], sets: list[str], as_json: bool) -> None:
    """Run ``dailies train captioner --dry-run``."""
    from dailies.pipelines.cli.plan_tables import print_captioner_plan
    from dailies.pipelines.train_captioner import plan_captioner_run

    if start is None or len(data) > 1:
        raise UsageError("train captioner --dry-run needs --from MODEL and at most one --data EXPORT")
    print_captioner_plan(plan_captioner_run(start, data[0] if data else None, sets=sets), as_json)


def _say(line: str) -> None:
    from dailies.pipelines.cli.progress import say_of_stage

    say_of_stage(line)
