"""Exactly once: runs killed with -9 at seeded moments and started again end in the tables of an unbroken run."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from dailies.curation import world
from dailies.curation.errors import DatasetError
from tests.conftest import Dailies
from tests.test_curate import FAST, comparable, table
from tests.test_engine import nothing_alone

ROOT = Path(__file__).resolve().parents[1]
QUICK = [*FAST, "--set", "text.side=320"]  # finding text would take most of a run's time


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    world.render_world(folder, seed=9, videos=4, shots=(2, 3), shot_frames=(30, 50), still=0.0, text=0.1)
    return folder


# Runs on this machine are forked off a server that has their imports, which take longer than these runs' work.
FORKS = multiprocessing.get_context("forkserver")
IMPORTS = (
    "dailies.pipelines.cli.main",
    "dailies.pipelines.run",
    "dailies.pipelines.recipes.recipe",
    "dailies.pipelines.cli.curation_tables",
    "rapidocr.main",
    __name__,
)


class Run(Protocol):
    """A process of its own, to be killed with -9."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int | None: ...
    def kill(self) -> None: ...


class Forked:
    """``dailies ARGUMENTS``, silent, as a ``Run``."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = FORKS.Process(target=command_line, args=(arguments,))
        self.process.start()
        self.pid = self.process.pid or 0
        self.kill = self.process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, ``None`` while it runs."""
        self.process.join(timeout)
        return self.process.exitcode


class KillableCommand(subprocess.Popen[bytes]):
    """``dailies ARGUMENTS`` as a user starts it, silent, as a ``Run``."""

    def __init__(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "dailies.pipelines.cli.main", *arguments]
        super().__init__(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def wait(self, timeout: float | None = None) -> int | None:  # type: ignore[override]
        """The exit code, ``None`` while it runs."""
        try:
            return super().wait(timeout)
        except subprocess.TimeoutExpired:
            return None


def command_line(arguments: list[str]) -> None:
    from dailies.pipelines.cli.main import main

    os.setsid()
    os.chdir(ROOT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    nothing_alone(pytest.MonkeyPatch())
    main(arguments)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    FORKS.set_forkserver_preload(list(IMPORTS))


def start(footage: Path, out: Path, engine: str) -> Run:
    """Start a run on ``engine``: ``ray``, ``local``, or ``processes``, which is local without the caller's own share."""
    arguments = ["curate", str(footage), "--out", str(out), *QUICK]
    if engine == "ray":
        return KillableCommand([*arguments, "--engine", "ray"])
    return Forked([*arguments, "--engine", "local", "--workers", "2" if engine == "processes" else "1"])


def at_work(process: Run, out: Path) -> bool:
    """Wait until the run holds the dataset's lock, which is when work begins; false if it ended before."""
    while process.poll() is None:
        lock = out / ".lock"
        if lock.exists() and lock.read_text().startswith(f"pid {process.pid} "):
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def unbroken(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nobody kills, and how long it works."""
    out = tmp_path_factory.mktemp("unbroken") / "dataset"
    process = start(footage, out, "local")
    assert at_work(process, out)
    began = time.monotonic()
    assert process.wait(timeout=120) == 0
    return out, time.monotonic() - began


def observed(out: Path) -> dict[str, float]:
    """Sources whose observation is committed, with the time it took: another value would mean it was done again."""
    try:
        rows = table(out, "observations")
    except (DatasetError, ValueError):
        return {}
    return dict(zip(rows["source_id"].to_pylist(), rows["seconds_taken"].to_pylist(), strict=True))


def kill_until_done(footage: Path, out: Path, engine: str, moments: Iterator[float], kills: int) -> int:
    """Kill runs at ``moments`` (seconds into their work) up to ``kills`` times or until one finishes before its moment;
    returns how many were killed at work. In the end the dataset is complete."""
    killed = 0
    before: dict[str, float] = {}
    finished = False
    while killed < kills and not finished:
        process = start(footage, out, engine)
        if at_work(process, out):
            process.wait(timeout=next(moments))
        finished = process.poll() == 0
        killed += process.poll() is None
        process.kill()
        process.wait()
        now = observed(out)
        assert before.items() <= now.items(), "committed work was done again, or lost"
        before = now
    if not finished:
        assert start(footage, out, engine).wait(timeout=180) == 0
    assert before.items() <= observed(out).items()
    return killed


def check_equal(out: Path, unbroken: Path, dailies: Dailies) -> None:
    assert comparable(out) == comparable(unbroken)
    assert dailies("verify", out, "--deep").returncode == 0
    assert dailies("gc", out).returncode == 0
    assert comparable(out) == comparable(unbroken)
    assert dailies("verify", out, "--deep").returncode == 0
    assert not list(out.rglob("*.tmp"))
    assert not list(out.glob("exports/.staging-*"))


# 13 moments with the plain loop, 6 with processes and 3 on Ray, 8, 4 and 2 of them slow.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "kills", "engine"),
    [
        (0, 5, "local"),
        (1, 2, "processes"),
        pytest.param(1, 4, "local", marks=pytest.mark.slow),
        pytest.param(2, 4, "local", marks=pytest.mark.slow),
        pytest.param(3, 4, "processes", marks=pytest.mark.slow),
    ],
)
def test_local_runs_killed_and_started_again_end_like_an_unbroken_one(
    seed: int, kills: int, engine: str, footage: Path, unbroken: tuple[Path, float], tmp_path: Path, dailies: Dailies
) -> None:
    reference, seconds = unbroken
    draw = random.Random(seed)
    moments = iter(lambda: draw.uniform(0, 0.9 * seconds), None)
    killed, number = 0, 0
    while killed < kills:  # a run that finishes before its moment does not count: on with a new dataset
        out = tmp_path / f"dataset-{number}"
        killed += kill_until_done(footage, out, engine, moments, kills - killed)
        check_equal(out, reference, dailies)
        number += 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "kills"), [(101, 1), pytest.param(100, 2, marks=pytest.mark.slow)])
def test_ray_runs_killed_and_started_again_end_like_an_unbroken_one(
    seed: int, kills: int, footage: Path, unbroken: tuple[Path, float], tmp_path: Path, dailies: Dailies
) -> None:
    draw = random.Random(seed)
    moments = iter(lambda: draw.uniform(4, 12), None)  # Ray takes some seconds to start
    killed, number = 0, 0
    while killed < kills:
        out = tmp_path / f"dataset-{number}"
        killed += kill_until_done(footage, out, "ray", moments, kills - killed)
        check_equal(out, unbroken[0], dailies)
        number += 1


def test_a_second_run_on_the_same_dataset_is_refused_and_a_killed_one_leaves_no_lock(
    footage: Path, tmp_path: Path, dailies: Dailies
) -> None:
    out = tmp_path / "dataset"
    first = start(footage, out, "local")
    assert at_work(first, out)
    refused = dailies("curate", footage, "--out", out, *QUICK, "--engine", "local")
    assert refused.returncode == 2
    assert f"pid {first.pid}" in refused.stderr
    first.kill()
    first.wait()
    assert dailies("curate", footage, "--out", out, *QUICK, "--engine", "local").returncode == 0
