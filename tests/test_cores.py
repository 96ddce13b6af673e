"""How many threads compute follows the load that other processes make, and what the user set holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dailies.curation import cores
from dailies.curation.cores import CHOSEN, ONE_THREAD, Follower, busy_seconds, threads_for
from dailies.pipelines.isolate import Isolated

TICK = 1 / os.sysconf("SC_CLK_TCK")
#      user nice system idle iowait irq softirq steal guest guest_nice
STAT = """cpu  999 999 999 999 999 999 999 999 999 999
cpu0 100 20 3 5000 700 1 2 4 100 20
cpu1 200 0 0 5000 0 0 0 0 0 0
cpu11 9000 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""


class Machine:
    """Two cores, of which ``others`` take some and this process ``own``, at a clock that ``wait`` turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stat: Path) -> None:
        self.others, self.own, self.threads = 0.0, 0.0, 2
        self._clock, self._busy, self._used, self._stat = 100.0, 50.0, 7.0, stat
        for name in CHOSEN:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(cores, "STAT", stat)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        monkeypatch.setattr(time, "monotonic", lambda: self._clock)
        monkeypatch.setattr(time, "process_time", lambda: self._used)
        self.wait(0)

    def wait(self, seconds: float) -> None:
        self._clock += seconds
        self._busy += (self.others + self.own) * seconds
        self._used += self.own * seconds
        ticks = round(self._busy / 2 / TICK)
        self._stat.write_text("".join(f"cpu{core} {ticks} 0 0 0 0 0 0 0\n" for core in (0, 1)))

    def follower(self) -> Follower:
        def set_threads(count: int) -> None:
            self.threads = count

        return Follower(lambda: self.threads, set_threads)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path / "stat")


def test_cores_are_busy_but_for_idle_time_and_waiting_for_disks() -> None:
    assert busy_seconds(STAT, {0}) == pytest.approx(130 * TICK)
    assert busy_seconds(STAT, {0, 1}) == pytest.approx(330 * TICK)


@pytest.mark.parametrize(
    ("count", "others", "threads"),
    [
        (2, 0.0, 2),
        (2, 0.4, 2),
        (2, 0.67, 1),
        (2, 1.0, 1),
        (2, 2.0, 1),
        (8, 0.9, 7),
        (8, 3.0, 5),
        (8, 7.8, 4),
        (1, 1.0, 1),
    ],
)
def test_as_many_threads_as_cores_are_left_but_half_of_all(count: int, others: float, threads: int) -> None:
    assert threads_for(count, others) == threads


def test_threads_follow_the_load_of_others_and_not_their_own(machine: Machine) -> None:
    follower = machine.follower()
    machine.own = 2.0
    machine.wait(5)
    assert follower.look() is None
    assert machine.threads == 2
    machine.own, machine.others = 1.3, 0.7
    machine.wait(1)
    assert follower.look() is None, "one second is too short to tell"
    machine.wait(1)
    assert follower.look() == "1 of 2 threads: other processes take 0.7 of 2 cores"
    assert machine.threads == 1
    machine.own, machine.others = 1.0, 1.0
    machine.wait(3)
    assert follower.look() == "1 of 2 threads: other processes take 0.7 of 2 cores", (
        "whoever looked before may not tell"
    )
    machine.others = 0.0
    machine.wait(3)
    assert follower.look() is None, "all of them are nothing to tell"
    assert machine.threads == 2


def test_a_number_that_the_program_sets_is_the_most(machine: Machine) -> None:
    follower = machine.follower()
    machine.threads = 1
    machine.wait(5)
    assert follower.look() is None
    assert machine.threads == 1


@pytest.mark.parametrize("name", CHOSEN)
def test_a_number_that_the_user_sets_stays(name: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    follower = machine.follower()
    machine.others = 2.0
    machine.wait(9)
    assert follower.look() is None
    assert machine.threads == 2


def test_where_the_system_does_not_tell_nothing_changes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "STAT", Path("/nowhere/stat"))
    follower = machine.follower()
    machine.wait(9)
    assert follower.look() is None


@pytest.mark.skipif(not cores.STAT.exists(), reason="only Linux tells its load")
def test_the_load_here_is_a_number_of_cores() -> None:
    load = cores.Load()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    assert load.seconds >= 0.3
    assert 0 <= load.others() <= load.cores + 0.2


def threads_here(heartbeat: object) -> list[str]:
    """In a child: what its environment says, and how many threads OpenCV takes."""
    import cv2

    return [*(os.environ.get(name, "") for name in ONE_THREAD), str(cv2.getNumThreads())]


def test_a_child_process_computes_on_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whose modules a child does not see
    with Isolated(f"{__name__}:threads_here", answer=list[str]) as child:
        assert child.call() == ["1"] * (len(ONE_THREAD) + 1)


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")])
def test_opencv_heeds_the_user_first(given: str | None, threads: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != cores.OPENCV}
    code = "import cv2; from dailies.curation.cores import limit_opencv; limit_opencv(1); print(cv2.getNumThreads())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | ({} if given is None else {cores.OPENCV: given}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == threads
