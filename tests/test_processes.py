"""Processes of this machine: a killed one costs a try, none outlives its stage where that ends badly; and which engine runs.

That rows are those of the plain loop is tested in ``test_kill.py`` and ``test_curate.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from dailies.curation import world
from dailies.curation.errors import NotInstalled, Outage, UsageError
from dailies.curation.types import Resources
from dailies.pipelines import capacity, clusters, processes
from dailies.pipelines import engine as engines
from tests.conftest import Dailies
from tests.test_clusters import RECIPE
from tests.test_curate import FAST
from tests.test_engine import nothing_alone
from tests.test_isolate import gone


@dataclass(frozen=True, kw_only=True)
class Pids:
    """Writes a file per bundle, ``N-PID``, into ``folder``; a number over 99 takes as many seconds, a negative one kills its
    process, the first time or, without ``once``, each time."""

    folder: str
    once: bool = True
    receipt: ClassVar[type] = list[int]
    name: ClassVar[str] = "pids"
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.1)

    @contextmanager
    def open(self) -> Iterator[engines.Call]:
        def call(bundle: pa.Table) -> list[int]:
            (number,) = bundle["n"].to_pylist()
            tries = len(list(Path(self.folder).glob(f"{number}-*")))
            Path(self.folder, f"{number}-{os.getpid()}").touch()
            if number < 0 and not (self.once and tries):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(number if number > 99 else 0.02)
            return [number, os.getpid()]

        yield call
        Path(self.folder, f"closed-{os.getpid()}").touch()


def numbers(*values: int) -> list[pa.Table]:
    return [pa.table({"n": [value]}) for value in values]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[engines.Session]:
    monkeypatch.chdir(tmp_path)  # which processes do not see
    nothing_alone(monkeypatch)
    with engines.session("local", workers=2) as session:
        yield session


def pids(folder: Path) -> set[int]:
    return {int(path.name.rpartition("-")[2]) for path in folder.iterdir()}


def test_work_is_shared_closed_and_its_processes_kept(session: engines.Session, tmp_path: Path) -> None:
    done = list(engines.run(Pids(folder=str(tmp_path)), numbers(*range(20)), session))
    assert sorted(number for number, _ in done) == list(range(20))
    workers = {pid for _, pid in done}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert {int(path.name.removeprefix("closed-")) for path in tmp_path.glob("closed-*")} == workers
    assert {pid for _, pid in engines.run(Pids(folder=str(tmp_path)), numbers(30, 31, 32), session)} <= workers


def test_a_killed_process_costs_its_bundle_one_more_try(session: engines.Session, tmp_path: Path) -> None:
    done = list(engines.run(Pids(folder=str(tmp_path)), numbers(1, 2, -3, 4, 5, 6), session))
    assert sorted(number for number, _ in done) == [-3, 1, 2, 4, 5, 6]
    assert len(list(tmp_path.glob("-3-*"))) == 2
    assert len(pids(tmp_path)) == 2, "the one that died, for want of memory it may be, was replaced"


def test_the_last_process_is_replaced(session: engines.Session, tmp_path: Path) -> None:
    done = list(engines.run(Pids(folder=str(tmp_path)), numbers(-1, -2), session))
    assert sorted(number for number, _ in done) == [-2, -1]


def test_two_deaths_at_one_bundle_end_the_run_in_one_line(session: engines.Session, tmp_path: Path) -> None:
    with pytest.raises(
        Outage, match=r"stage pids: 2 processes.*died of SIGKILL \(out of memory\?\)\); fewer --workers"
    ):
        list(engines.run(Pids(folder=str(tmp_path), once=False), numbers(1, 2, -3, 4), session))
    assert len(list(tmp_path.glob("-3-*"))) == 2


def test_who_stops_asking_leaves_no_process_at_work(session: engines.Session, tmp_path: Path) -> None:
    with closing(engines.run(Pids(folder=str(tmp_path)), numbers(1, 500, 2, 3), session)) as running:  # type: ignore[type-var]
        next(running)
        while not list(tmp_path.glob("500-*")):
            time.sleep(0.02)
    (stuck,) = pids(tmp_path) & {int(path.name[4:]) for path in tmp_path.glob("500-*")}
    assert gone(stuck, seconds=1)


def test_bundles_are_not_taken_before_a_process_is_free(session: engines.Session, tmp_path: Path) -> None:
    taken = 0

    def bundles() -> Iterator[pa.Table]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield from numbers(number)

    for done, _ in enumerate(engines.run(Pids(folder=str(tmp_path)), bundles(), session), 1):
        assert taken <= done + 10  # those answered and not yet seen here among them


def test_a_short_stage_starts_no_process(tmp_path: Path) -> None:
    with engines.session("local", workers=2) as session:
        done = list(engines.run(Pids(folder=str(tmp_path)), numbers(*range(5)), session))
    assert {pid for _, pid in done} == {os.getpid()}


def test_a_long_stage_goes_on_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "ALONE_SECONDS", 0.1)
    with engines.session("local", workers=2) as session:
        done = list(engines.run(Pids(folder=str(tmp_path)), numbers(*range(99)), session))
    assert sorted(number for number, _ in done) == list(range(99))
    assert {pid for _, pid in done} > {os.getpid()}


def test_work_of_the_running_script_stays_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing_alone(monkeypatch)
    monkeypatch.setattr(engines, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(Pids, "__module__", "__main__")
    with engines.session("local", workers=2) as session:
        done = list(engines.run(Pids(folder=str(tmp_path)), numbers(1, 2, 3), session))
    assert {pid for _, pid in done} == {os.getpid()}
    assert "stage pids: its class lies in the running script" in caplog.text


@dataclass(frozen=True, kw_only=True)
class Beside(Pids):
    """Imports a module that lies in the working directory, where a script looks and other processes do not."""

    name: ClassVar[str] = "beside"

    @contextmanager
    def open(self) -> Iterator[engines.Call]:
        importlib.import_module("lies_beside_the_script")
        with super().open() as call:
            yield call


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lies_beside_the_script.py").touch()
    yield tmp_path
    sys.modules.pop("lies_beside_the_script", None)


def test_what_lies_beside_the_script_keeps_the_stage_here(
    beside: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "ALONE_SECONDS", 0.1)
    taken: list[int] = []

    def bundles() -> Iterator[pa.Table]:
        until = time.monotonic() + 60
        while "stage beside" not in caplog.text and time.monotonic() < until:
            taken.append(len(taken) % 90)
            yield from numbers(taken[-1])

    with engines.session("local", workers=2) as session:
        done = list(engines.run(Beside(folder=str(beside)), bundles(), session))
    assert sorted(number for number, _ in done) == sorted(taken), "none lost, none done twice"
    assert {pid for _, pid in done} == {os.getpid()}
    assert caplog.text.count("stage beside: other processes lack what this one has, so it runs in one process") == 1
    assert "No module named 'lies_beside_the_script'" in caplog.text


def test_processes_of_a_stage_before_need_not_open_the_next(
    beside: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing_alone(monkeypatch)
    with engines.session("local", workers=2) as session:
        assert len(list(engines.run(Pids(folder=str(beside)), numbers(1, 2, 3), session))) == 3
        done = list(engines.run(Beside(folder=str(beside)), numbers(4, 5, 6), session))
        assert sorted(done) == [[number, os.getpid()] for number in (4, 5, 6)]
        caplog.clear()
        sys.modules.pop("lies_beside_the_script")
        (beside / "lies_beside_the_script.py").unlink()
        importlib.invalidate_caches()
        with pytest.raises(NotInstalled, match="lies_beside_the_script"):
            list(engines.run(Beside(folder=str(beside)), numbers(7, 8), session))
    assert caplog.text == "", "it is lacking here too"


def test_processes_are_as_many_as_memory_holds(
    session: engines.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 0.2)  # GB, of which each process takes 0.1
    assert {pid for _, pid in engines.run(Pids(folder=str(tmp_path)), numbers(1, 2, 3), session)} == {os.getpid()}


# ---- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "cluster", "gpus", "gpus_here", "chosen"),
    [
        ("auto", False, 0, 0, "local"),
        ("auto", False, 0, 8, "local"),
        ("auto", True, 0, 0, "ray"),
        ("auto", False, 1, 1, "local"),
        ("auto", False, 1, 2, "ray"),
        ("auto", False, 0.25, 1, "ray"),
        ("auto", False, 1, 0, "ray"),  # which refuses
        ("local", True, 1, 8, "local"),
        ("ray", False, 0, 0, "ray"),
    ],
)
def test_auto_takes_ray_for_a_cluster_and_for_several_workers_on_gpus(
    engine: engines.Engine, cluster: bool, gpus: float, gpus_here: int, chosen: str
) -> None:
    assert engines.choose(engine, cluster=cluster, gpus=gpus, gpus_here=gpus_here) == chosen


@pytest.mark.parametrize(("address", "chosen"), [(None, "local"), ("local", "local"), ("127.0.0.1:6379", "ray")])
def test_a_named_cluster_is_taken(address: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(clusters, "_check_answer", lambda address: None)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with engines.session("auto") as session:
        assert session.chosen(0) == chosen


def test_no_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="workers=0: must be at least 1"), engines.session("auto", workers=0):
        pass


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_container_has_the_cpus_that_it_was_given(
    files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(files, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert capacity.cpus() == cpus


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8e6 * 1024 / 1e9),
        ({"memory.max": "max", "memory.current": "5000000000"}, 8e6 * 1024 / 1e9),
        ({"memory.max": "4000000000", "memory.current": "3000000000", "memory.stat": "inactive_file 500000000"}, 1.5),
        ({"memory/memory.limit_in_bytes": "4000000000", "memory/memory.usage_in_bytes": "1000000000"}, 3.0),
    ],
)
def test_a_container_has_the_memory_that_it_was_given(
    files: dict[str, str], free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(files, tmp_path, monkeypatch)
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    monkeypatch.setattr(capacity, "MEMINFO", tmp_path / "meminfo")
    assert capacity.free_memory() == pytest.approx(free)


def put(files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(capacity, "CGROUPS", folder)


# ---- whole runs -----------------------------------------------------------------------------------------------------


NOTHING_TO_DO = """
import sys
import dailies
done = dailies.curate(sys.argv[1], sys.argv[2], recipe=sys.argv[3], engine=sys.argv[4], progress=dailies.silent)
assert done.sources.ok == 1, done.sources
assert "ray" not in sys.modules
"""


@pytest.mark.parametrize("engine", ["auto", "ray"])
def test_a_run_with_nothing_to_do_imports_no_ray(engine: str, done_before: tuple[Path, Path, Path]) -> None:
    command = [sys.executable, "-c", NOTHING_TO_DO, *map(str, done_before), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def done_before(tmp_path_factory: pytest.TempPathFactory, dailies: Dailies) -> tuple[Path, Path, Path]:
    """A film, its dataset, and the recipe."""
    folder = tmp_path_factory.mktemp("done")
    film = world.encode(world.write_script(3, shots=2, shot_frames=(30, 40)), folder / "film.mp4")
    (folder / "recipe.yaml").write_text(RECIPE)
    done = dailies("curate", film, "--out", folder / "dataset", "--recipe", folder / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    return film, folder / "dataset", folder / "recipe.yaml"


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_stopped_leaves_no_process(
    stop: signal.Signals, code: int, small_world: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", AT_ONCE, "curate", small_world, "--out", tmp_path / "dataset", *FAST]
    run = subprocess.Popen([*map(str, command), "--workers", "2"], stderr=subprocess.PIPE, text=True)
    left = time.monotonic() + 60
    while len(below(run.pid)) < 4 and time.monotonic() < left:  # two that work, each with one that decodes
        time.sleep(0.02)
    there = below(run.pid)
    assert len(there) >= 4
    began = time.monotonic()
    run.send_signal(stop)
    assert run.wait(timeout=20) == code
    assert gone(*there, seconds=3)
    assert time.monotonic() - began < 5
    if stop == signal.SIGINT:
        assert run.stderr is not None
        last = run.stderr.read().splitlines()[-1]
        assert last == "dailies: stopped; what is done is kept, and the same command goes on from there"


AT_ONCE = """
import sys
from dailies.pipelines import processes
processes._Sharing.alone = lambda self, here: iter(())
from dailies.pipelines.cli.main import main
main(sys.argv[1:])
"""


def below(root: int) -> set[int]:
    """The processes that ``root`` has started, and those that these have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
    found = {root}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {root}
