"""The command that writes short prompts as captions are written."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from dailies.curation.errors import UsageError
from dailies.pipelines.cli.help import ENGINE, INPUT, MODELS, WORK
from dailies.pipelines.cli.options import Json
from dailies.pipelines.cli.terminal import say, say_json

MOST = 1 << 20  # characters of a standard input


def expand(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT...", help="Short prompts; - reads one a line from standard input.", rich_help_panel=INPUT
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FOLDER",
            help="A folder of transformers, a hub's OWNER/NAME, zoo:NAME, or what the endpoint calls it.",
            show_default="smollm2",
            rich_help_panel=MODELS,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="NAME", help="Of the hub's repository.", rich_help_panel=MODELS),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="A server that speaks OpenAI's protocol, such as http://localhost:8000/v1.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            "--key-env",
            metavar="NAME",
            help="The environment variable that holds the server's key.",
            show_default="OPENAI_API_KEY",
            rich_help_panel=MODELS,
        ),
    ] = None,
    style: Annotated[
        str,
        typer.Option(
            "--style",
            metavar="NAME|FILE",
            help="What the model is told: a prompt that ships with dailies, or a file (.txt, .md).",
            rich_help_panel=WORK,
        ),
    ] = "expand",
    fields: Annotated[
        bool,
        typer.Option(
            "--fields",
            help="Write subject, action, setting and so on as captions of fields are, for a model trained on such.",
            rich_help_panel=WORK,
        ),
    ] = False,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="Texts of each prompt.", rich_help_panel=WORK)
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of what is drawn.", rich_help_panel=WORK)] = 0,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            metavar="T",
            help="0 for the likeliest words.",
            show_default="0, and 0.8 with --count",
            rich_help_panel=WORK,
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", help="Most tokens of a text.", rich_help_panel=WORK)
    ] = 160,
    gpus: Annotated[
        float, typer.Option("--gpus", metavar="N", help="GPUs for a model on this machine.", rich_help_panel=ENGINE)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Write short prompts as long captions are, by a language model. What they do not say, it makes up.

    Prints a line for each text. A prompt that the model has no use for stays as it is.

    Examples:
    dailies expand "a cat"
    dailies expand "a cat" --count 4 --seed 1
    dailies expand "a cat" --endpoint http://gpu:8000/v1 --model Qwen/Qwen3-8B
    dailies expand - < prompts.txt --json
    """
    from dailies.pipelines.cli.progress import progress_for
    from dailies.pipelines.expanding import KEPT, expand

    report = expand(
        [text for prompt in prompts for text in (_lines() if prompt == "-" else [prompt])],
        model=model,
        revision=revision,
        endpoint=endpoint,
        key_env=key_env,
        gpus=gpus,
        progress=progress_for(as_json),
        style=style,
        fields=fields,
        count=count,
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    if as_json:
        say_json(asdict(report))
        return
    for each in report.expansions:
        if KEPT in each.flags:
            say(f"dailies: {each.prompt!r} stays as it is: {', '.join(each.flags[1:])}", err=True)
        say(each.text)


def _lines() -> list[str]:
    """Return the lines of standard input that are not empty."""
    text = sys.stdin.read(MOST + 1)
    if len(text) > MOST:
        raise UsageError(f"-: standard input has over {MOST:,} characters; give it in parts")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError("-: standard input is empty; write one prompt a line")
    return lines
