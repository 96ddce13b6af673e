"""The command line: every option is explained, a mistake is one line, and a defect keeps its traceback."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dailies.curation.errors import Damaged, UsageError
from dailies.pipelines import maintenance
from dailies.pipelines.cli.interrupt import RESUMES, STOPPING, stopped_line
from dailies.pipelines.cli.main import DEFECT, app
from tests.conftest import Dailies


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands() -> None:
    zoo = {"zoo publish", "zoo list", "zoo show", "zoo run", "zoo verify"}
    curation = {
        "curate",
        "cuts",
        "select",
        "export",
        "sql",
        "verify",
        "gc",
        "withdraw",
        "dedup",
        "diff",
        "info",
        "show",
        "stats",
        "report",
        "view",
        "doctor",
        "expand",
    }
    recipe = {"recipe list", "recipe explain", "recipe show", "recipe check", "recipe diff"}
    assert set(COMMANDS) == curation | zoo | recipe | {"train", "quickstart", "doctor", "captions compare"}


def test_help_lists_commands_in_the_order_of_work_and_groups_among_them(dailies: Dailies) -> None:
    names = re.findall(r"^  ([a-z]+)  ", dailies("--help").stdout, re.M)
    way = ["quickstart", "curate", "dedup", "select", "export", "train", "zoo", "expand"]
    beside = [
        "info",
        "show",
        "stats",
        "report",
        "view",
        "diff",
        "captions",
        "recipe",
        "doctor",
        "cuts",
        "sql",
        "verify",
    ]
    assert names == [*way, *beside, "withdraw", "gc"]


@pytest.mark.parametrize("name", ["", "cpu", "motion"])
def test_recipes_is_another_name_of_what_recipe_does(name: str, dailies: Dailies) -> None:
    new = ("recipe", "explain", name) if name else ("recipe", "list")
    assert dailies("recipes", *[name][: len(name)]) == dailies(*new)
    assert dailies("recipes", *[name][: len(name)], "--json").stdout == dailies(*new, "--json").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_row_in_the_table(name: str) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/commands.md").read_text(encoding="utf-8")
    rows = [set(re.findall(r"[a-z]+", row)) for row in page.splitlines() if row.startswith("| `dailies ")]
    assert any({"dailies", *name.split()} <= row for row in rows)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"
        assert parameter.help.endswith("."), f"{name} {parameter.name}: {parameter.help}"


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``dailies verify`` raise ``error``."""

    def fail(url: str, *, deep: bool) -> None:
        raise error

    monkeypatch.setattr(maintenance, "verify_dataset", fail)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("--deep: no such depth"), 2, "dailies: --deep: no such depth"),
        (Damaged("lock: a file is missing"), 1, "dailies: lock: a file is missing"),
        (KeyboardInterrupt(), 130, "dailies: stopped; not everything was checked"),
    ],
)
def test_an_error_of_the_project_is_one_line(
    error: BaseException, code: int, line: str, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(error, monkeypatch)
    done = dailies("verify", "dataset")
    assert done.returncode == code
    assert done.stderr == f"{line}\n"
    assert not done.stdout


@pytest.mark.parametrize("error", [ValueError("lists differ in length"), RuntimeError("no kernel"), KeyError("frames")])
def test_a_defect_keeps_its_traceback(error: Exception, dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(error, monkeypatch)
    done = dailies("verify", "dataset")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{__file__}"' in done.stderr
    assert "in fail" in done.stderr
    assert lines[-2] == f"{type(error).__name__}: {error}"
    assert lines[-1] == DEFECT


def test_the_end_of_a_file_is_no_interrupt(dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer takes an ``EOFError`` for Ctrl-D; here it comes from a file that is cut, and resuming would not help."""
    failing(EOFError("compressed file ended"), monkeypatch)
    done = dailies("verify", "dataset")
    assert done.returncode == 1
    assert "stopped" not in done.stderr
    assert "in fail" in done.stderr
    assert done.stderr.splitlines()[-2:] == ["EOFError: compressed file ended", DEFECT]


def test_export_refuses_options_of_latents(dailies: Dailies, tmp_path: Path) -> None:
    done = dailies("export", tmp_path, "--vae", "zoo:tiny-vae")
    assert done.returncode == 2
    assert done.stderr == "dailies: --vae=zoo:tiny-vae: only export --latents takes it; add --latents RECIPE[:PHASE]\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; the same command resumes"),
        (MemoryError("of 3 GB"), "memory ran out: of 3 GB"),
    ],
)
def test_what_the_machine_lacks_is_one_line(
    error: Exception, line: str, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(error, monkeypatch)
    done = dailies("verify", "dataset")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["curate", "videos", "--out", "dataset"], RESUMES),
        (["export", "dataset", "--latents", "tiny"], RESUMES),
        (["train", "tiny"], "the same command goes on from the last checkpoint"),
        (["zoo", "run", "model"], "no video was written"),
        (["zoo", "--help", "list"], None),
        (["sql", "dataset", "select 1"], None),
        ([], None),
    ],
)
def test_an_interrupt_says_what_holds_then(arguments: list[str], outcome: str | None) -> None:
    """Only of a command that goes on is it said that it does."""
    assert stopped_line(arguments) == f"dailies: stopped{f'; {outcome}' if outcome else ''}"


SLOW_TO_STOP = """
import sys, time
from dailies.pipelines import run
from dailies.pipelines.cli import curate, interrupt, main

interrupt.PATIENCE = 0.2

def stop_slowly(*_, **__):
    try:
        print("works", flush=True)
        time.sleep(60)
    finally:
        time.sleep(float(sys.argv[1]))

run.curate = stop_slowly
main.main(["curate", "videos", "--out", "dataset"])
"""


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, []), (0.6, [STOPPING])])
def test_an_interrupt_is_one_line_and_another_where_it_takes_time(seconds: float, lines: list[str]) -> None:
    command = [sys.executable, "-c", SLOW_TO_STOP, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "works\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().splitlines() == [*lines, f"dailies: stopped; {RESUMES}"]
    assert process.returncode == 130
