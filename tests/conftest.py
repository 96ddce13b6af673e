"""Shared fixtures: a small rendered world, and the command line as a user has it. A run says which tests it left out."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import world

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests keep nothing in the user's own cache."""
    os.environ["DAILIES_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_process() -> Iterator[None]:
    """Stages stay in this process, where tests put their own functions, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dailies.pipelines.processes.ALONE_SECONDS", 3600.0)
        yield


@pytest.fixture(autouse=True)
def _working_directory() -> Iterator[None]:
    """A test leaves the working directory as it was: a later one of the same process imports from it."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, where it is installed: numbers come out alike, and threads do not wait for each other."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Research footage beside the repository; tests that use it skip visibly where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no footage at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rendered videos of three to four shots with ``truth.json``. Read only."""
    folder = tmp_path_factory.mktemp("world")
    world.render_world(folder, seed=5, videos=5, shots=(3, 4), shot_frames=(30, 60))
    return folder


@pytest.fixture(scope="session")
def truth(small_world: Path) -> dict[str, Any]:
    return dict(json.loads((small_world / "truth.json").read_text()))


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Dailies = Callable[..., CommandResult]


@pytest.fixture(scope="session")
def dailies() -> Dailies:
    """Run ``dailies ARGS`` in this process, which saves its start each time."""
    from dailies.pipelines.cli.main import main

    def run(*args: object) -> CommandResult:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(arg) for arg in args])
            except SystemExit as exit:
                code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        return CommandResult(code, out.getvalue(), err.getvalue())

    return run


DESELECTED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DESELECTED] = []


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash[DESELECTED].append(item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every process of a parallel run collects every test, so each leaves out the same ones."""
    node.config.stash[DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    workeroutput = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        workeroutput["deselected"] = session.config.stash[DESELECTED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """``make test`` is not every test: which ones it leaves out, by file, and the command that runs them."""
    files = Counter(nodeid.split("::")[0] for nodeid in config.stash[DESELECTED])
    if config.option.markexpr == "not slow" and files:
        terminalreporter.section("left out: slow tests")
        for file, tests in sorted(files.items()):
            terminalreporter.write_line(f"{tests:4} {file}")
        terminalreporter.write_line(
            f"{files.total():4} in all; `make test-slow` runs them, `make nightly` runs every check"
        )
