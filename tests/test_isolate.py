"""dailies.pipelines.isolate: a child that hangs, dies, raises or is orphaned costs one call and leaves no process behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from socket import gethostname

import pytest

from dailies.curation.errors import Crashed, Defect, Hung, NotInstalled, Outage, Truncated
from dailies.pipelines.isolate import Isolated

Beat = Callable[[], None]
ROOT = Path(__file__).parents[1]


# ---- what runs in the child -----------------------------------------------------------------------------------------


def double(value: object, heartbeat: Beat) -> tuple[object, int]:
    print("noise on stdout")
    os.system("echo more noise")
    return value * 2, os.getpid()  # type: ignore[operator]


def read_stdin(heartbeat: Beat) -> str:
    return sys.stdin.read()


def hang_in_c(path: str, heartbeat: Beat) -> None:
    with open(path):  # a FIFO that nobody writes to
        pass


def hang_with_grandchild(folder: str, heartbeat: Beat) -> None:
    subprocess.Popen(["sleep", "600"])
    (Path(folder) / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def slow_but_alive(seconds: float, heartbeat: Beat) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
        heartbeat()
    return "done"


def die(how: str, heartbeat: Beat) -> None:
    print("last words", file=sys.stderr, flush=True)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.Signals[how])


def die_with_grandchild(folder: str, seconds: float, heartbeat: Beat) -> None:
    grandchild = os.fork()  # which holds the pipes of this process
    if not grandchild:
        time.sleep(seconds)
        os._exit(0)
    (Path(folder) / "pid").write_text(str(grandchild))
    os.kill(os.getpid(), signal.SIGKILL)


def complain(kind: str, heartbeat: Beat) -> object:
    if kind == "ours":
        raise Truncated("ends early")
    if kind == "memory":
        raise MemoryError
    if kind == "no data":
        return lambda: 0
    if kind == "package":
        import no_such_package  # noqa: F401
    if kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == "map":
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if kind == "allocator":
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 9 TB"
        )
    raise KeyError("not ours")


def open_files(heartbeat: Beat) -> list[str]:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.islink(link)]


def fill(gigabytes: float, heartbeat: Beat) -> int:
    return len(bytearray(int(gigabytes * 2**30)))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children do not see the working directory, which this module must not lie in."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def isolated(function: Callable[..., object], **settings: float | None) -> Isolated:
    return Isolated(f"{__name__}:{function.__name__}", **settings)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(*pids: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.05)
    return not any(map(alive, pids))


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_one_child_serves_many_calls_whatever_it_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with isolated(double) as child:
        assert child.pid is None
        results = [child.call(value) for value in (1, "ab", b"x" * 5_000_000)]
        assert [value for value, _ in results] == [2, "abab", b"x" * 10_000_000]
        assert {pid for _, pid in results} == {child.pid}
        assert child.pid != os.getpid()
        pid = child.pid
    assert gone(pid)
    assert capfd.readouterr() == ("", "")


def test_the_child_cannot_read_the_requests() -> None:
    with isolated(read_stdin) as child:
        assert child.call() == child.call() == ""


def test_heartbeats_keep_a_slow_call_alive() -> None:
    with isolated(slow_but_alive, stall_seconds=1) as child:
        assert child.call(1.6) == "done"


def test_a_child_stuck_in_c_is_killed_and_the_next_call_gets_another(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("")
    with isolated(hang_in_c, stall_seconds=1) as child:
        child.call(str(tmp_path / "file"))
        pid = child.pid
        with pytest.raises(Hung, match="no progress in 1 s"):
            child.call(str(tmp_path / "fifo"))
        assert gone(pid)
        child.call(str(tmp_path / "file"))
        assert child.pid != pid


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("SIGSEGV", "of SIGSEGV: last words"),
        ("SIGKILL", "of SIGKILL .out of memory"),
        ("exit", "with exit code 3: last words"),
    ],
)
def test_a_child_that_dies_says_how(how: str, words: str) -> None:
    with isolated(die) as child:
        for _ in range(2):
            with pytest.raises(Crashed, match=words):
                child.call(how)


@pytest.mark.parametrize("stall", [None, 30.0])
def test_a_child_that_dies_is_missed_though_what_it_forked_holds_its_pipes(stall: float | None, tmp_path: Path) -> None:
    with isolated(die_with_grandchild, stall_seconds=stall) as child:
        began = time.monotonic()
        with pytest.raises(Crashed, match="of SIGKILL"):
            child.call(str(tmp_path), 25.0)
        assert time.monotonic() - began < 20, "the start included"
        assert gone(int((tmp_path / "pid").read_text()), seconds=3)


def test_what_the_function_raises_comes_back() -> None:
    with isolated(complain) as child:
        with pytest.raises(Truncated, match=r"^ends early$"):
            child.call("ours")
        with pytest.raises(Defect, match="KeyError: 'not ours'") as caught:
            child.call("theirs")
        assert ".py:" in str(caught.value)  # where it was raised
        with pytest.raises(Defect, match="does not travel"):
            child.call("no data")
        with pytest.raises(Crashed, match="out of memory"):
            child.call("memory")
        pid = child.pid
        with pytest.raises(Truncated):
            child.call("ours")
        assert child.pid == pid


def test_a_function_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="module:name"):
        Isolated("module.name")
    with Isolated(f"{__name__}:no_such_function") as child, pytest.raises(Outage, match="no_such_function"):
        child.call()


def test_a_package_that_is_absent_is_no_fault_of_the_item_and_names_the_machine() -> None:
    for function, *arguments in (("no.such.module:f",), (f"{__name__}:complain", "package")):
        with Isolated(function) as child, pytest.raises(NotInstalled, match=rf"^{gethostname()}: .*No module named"):
            child.call(*arguments)


def test_a_full_disk_is_no_fault_of_the_item() -> None:
    with isolated(complain) as child, pytest.raises(Outage, match="No space left on device"):
        child.call("disk")


@pytest.mark.parametrize("kind", ["memory", "map", "allocator"])
def test_memory_that_runs_out_under_the_childs_own_limit_is_the_items_fault(kind: str) -> None:
    with isolated(complain) as child, pytest.raises(Crashed, match="its process ran out of memory"):
        child.call(kind)


def test_a_child_that_cannot_start_is_no_fault_of_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('no child starts with this')")
    monkeypatch.syspath_prepend(tmp_path)
    with Isolated("av:open") as child, pytest.raises(Outage, match=r"cannot start: .*no child starts with this"):
        child.call()


def test_an_import_that_fails_is_no_fault_of_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise OSError('libX.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with Isolated("broken_library:open") as child, pytest.raises(Outage, match=r"cannot start: .*libX\.so\.1"):
        child.call()


def test_a_memory_limit_is_kept() -> None:
    with isolated(fill, memory_gb=1.5) as child:
        assert child.call(0.1) > 0
        with pytest.raises(Crashed, match="out of memory"):
            child.call(3)


def test_open_files_and_working_directory_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "curation").mkdir()
    (tmp_path / "curation/__init__.py").write_text("raise SystemExit('the wrong package')")
    for name in ("pickle", "queue", "av"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as in a notebook, and with python -m
    with open(tmp_path / "lock", "w") as lock, isolated(open_files) as child:
        os.set_inheritable(lock.fileno(), True)
        assert str(tmp_path / "lock") not in child.call()


# ---- no process is left behind --------------------------------------------------------------------------------------

PARENT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
sys.path[:0] = [{tests!r}, {root!r}]
from dailies.pipelines.isolate import Isolated
with Isolated("test_isolate:hang_with_grandchild") as child:
    child.call({folder!r})
"""


def start_parent(folder: Path) -> tuple[subprocess.Popen[bytes], int, int]:
    """A process that is inside a call → itself, its child's pid, its grandchild's pid. The script has no ``__main__`` guard."""
    script = folder / "parent.py"
    script.write_text(PARENT.format(tests=str(ROOT / "tests"), root=str(ROOT), folder=str(folder)))
    parent = subprocess.Popen([sys.executable, script], cwd=folder, stderr=subprocess.PIPE)
    note = folder / "pid"
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert parent.poll() is None, parent.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    pid = int(note.read_text())
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return parent, pid, int(below[0])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_busy_child_goes_with_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    parent, child, grandchild = start_parent(tmp_path)
    assert alive(child)
    assert alive(grandchild)
    parent.send_signal(how)
    parent.communicate(timeout=20)
    assert gone(child, grandchild)


def test_an_idle_child_goes_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    lines = PARENT.replace("hang_with_grandchild", "double").replace(
        "child.call({folder!r})", "print(child.call(1)[1], flush=True)"
    )
    script.write_text(lines.format(tests=str(ROOT / "tests"), root=str(ROOT)) + "    os.kill(os.getpid(), 9)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True)
    assert gone(int(done.stdout))


def test_a_child_that_was_forgotten_goes_with_its_object() -> None:
    child = isolated(double)
    child.call(1)
    pid = child.pid
    del child
    assert gone(pid)
