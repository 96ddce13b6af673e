"""Runs a function in a child process with a time limit, so that a file that hangs or crashes the decoder costs only its row.

The child is started by command line and not by ``multiprocessing``, which imports ``__main__`` again: that breaks
scripts without a guard, and Ray's workers. Messages stand behind their length: requests, pickles, on the child's stdin;
answers and heartbeats on what was its stdout. Answers are data (``dailies.pipelines.answers``), since a file that takes the
child over must not come further. What libraries print goes to its stderr; its last line explains a crash.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import IO, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dailies.curation.addresses import scrub
from dailies.curation.config import format_error
from dailies.curation.cores import ONE_THREAD
from dailies.curation.errors import Crashed, DailiesError, Defect, Hung, SourceError, item_error, lacks_memory, outage
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.pipelines.answers import error_of, error_row, pack, unpack
from dailies.pipelines.import_path import safe_path

HEADER = struct.Struct("<Q")  # length of the message that follows, in bytes
ANSWER_BYTES = 4 << 30  # most that a child may answer
POLICY = "DAILIES_SOURCE_POLICY"  # the variable that tells a child its policy; arguments are for all to see
HEARTBEAT_SECONDS = 0.25  # least time between two heartbeat messages
START_SECONDS = 60.0  # for the child's imports, on top of the stall limit
LOOK_SECONDS = 1.0  # how often the parent checks that its child lives, while it waits
PARENT_SECONDS = 0.5  # how often the child checks that its parent lives


class Isolated:
    """A child process that calls ``function`` (``"module:name"``), one call at a time. A context manager.

    The child starts with the first call, serves the next ones too, and is restarted after it was killed. It ends with
    this object, and when this process dies.

    Args:
        answer: type of what the function returns, such as ``dict[str, Any]``; an answer that is none is refused.
        policy: what the child may open of what others wrote.
        stall_seconds: how long a call may go without a heartbeat; ``None``: as long as it takes.
        memory_gb: limit of the child's address space (GiB); ``None``: no limit.
    """

    def __init__(
        self,
        function: str,
        *,
        answer: Any = Any,
        policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - frozen
        stall_seconds: float | None = 60,
        memory_gb: float | None = None,
    ) -> None:
        module, _, name = function.partition(":")
        if not module or not name:
            raise ValueError(f"function={function!r}: not of the form 'module:name'")
        self._function = function
        self._checked: TypeAdapter[Any] = TypeAdapter(answer, config=ConfigDict(arbitrary_types_allowed=True))
        self._policy = policy
        self._stall = stall_seconds
        self._memory = memory_gb
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit, what it needs may be gone
            self.close()

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """Kill the child, if there is one. Idempotent."""
        self._kill()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def interrupt(self) -> None:
        """Kill the child, from another thread than the one that waits in ``call``, which raises ``Crashed`` for it."""
        child = self._child
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)

    def call(self, *args: Any) -> Any:
        """Call ``function(*args, heartbeat)``, which calls ``heartbeat()`` whenever it has made progress.

        Raises ``Hung`` when it did not within ``stall_seconds`` (the child is killed), ``Crashed`` when the child died,
        ``Outage`` when it could not start, the function's own exception if that is one of ``dailies.curation.errors``,
        else what ``item_error`` makes of it: ``Defect`` for most.
        """
        try:
            if self._child is None:
                self._start()
            self._send(pickle.dumps(args, protocol=5))
            answer = self._answer(self._stall)
            if answer["kind"] == "done":
                return self._checked.validate_python(answer["value"])
        except ValidationError as error:
            self._kill()
            raise Crashed(f"its process gave an answer that is none ({format_error(error)}); it was killed") from error
        except BaseException:
            self._kill()  # also on KeyboardInterrupt: a late answer would be taken for that of the next call
            raise
        raise _error(answer["value"])

    # ---- the child ----

    def _start(self) -> None:
        if self._stderr is None:
            self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        # Like -P: what happens to lie in the working directory must not hide modules.
        path = os.pathsep.join(safe_path(sys.path))
        command = [sys.executable, "-P", "-m", "dailies.pipelines.isolate", self._function]
        self._child = subprocess.Popen(
            [*command, str(os.getpid()), str(self._stall or 0), str(self._memory or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment() | ONE_THREAD | {"PYTHONPATH": path, POLICY: self._policy.to_json()},
            start_new_session=True,  # a group of its own: killed with all that it may start, untouched by Ctrl-C
        )
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)
        try:
            started = self._answer((self._stall or 0) + START_SECONDS)
            if started["kind"] != "done":
                raise _error(started["value"])
        except SourceError as error:  # before it looked at any item
            raise outage(f"a child process cannot start: {error}") from error

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)  # a child that waits for a dead disk dies only when the disk answers: let it
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _send(self, message: bytes) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._stderr is not None
        self._stderr.seek(0)  # which is the child's position too
        self._stderr.truncate()  # what is read after a crash must be about this call
        pipe, rest = self._child.stdin.fileno(), memoryview(HEADER.pack(len(message)) + message)
        while rest:
            self._wait(pipe, select.POLLOUT, self._stall)
            try:
                rest = rest[os.write(pipe, rest) :]
            except BrokenPipeError:
                raise self._crash() from None

    def _answer(self, seconds: float | None) -> dict[str, Any]:
        """Return the next message that is not a heartbeat; each heartbeat gives it another ``seconds``."""
        while True:
            (length,) = HEADER.unpack(self._read(HEADER.size, seconds))
            if length > ANSWER_BYTES:
                raise Crashed(f"its process gave an answer of {length} bytes; it was killed")
            try:
                answer = unpack(self._read(length, seconds))
                if answer["kind"] == "heartbeat":
                    seconds = self._stall
                    continue
                if answer["kind"] != "done":
                    _error(answer["value"])  # that it is one
                return {"kind": answer["kind"], "value": answer["value"]}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise Crashed(f"its process gave an answer that is none ({error}); it was killed") from error

    def _read(self, length: int, seconds: float | None) -> bytearray:
        assert self._child is not None
        assert self._child.stdout is not None
        pipe, data = self._child.stdout.fileno(), bytearray()
        while len(data) < length:
            self._wait(pipe, select.POLLIN, seconds)
            part = os.read(pipe, min(length - len(data), 1 << 20))
            if not part:
                raise self._crash()
            data += part
        return data

    def _wait(self, pipe: int, event: int, seconds: float | None) -> None:
        """Wait until ``pipe`` is ready; raise ``Crashed`` where the child has ended, and ``Hung`` after ``seconds``."""
        assert self._child is not None
        poll, began = select.poll(), time.monotonic()
        poll.register(pipe, event)
        while True:
            left = LOOK_SECONDS if seconds is None else began + seconds - time.monotonic()
            if poll.poll(max(0.0, min(left, LOOK_SECONDS)) * 1000):
                return
            # What the child forked off holds its pipes too, so they may stay open when it has died.
            if self._child.poll() is not None:
                if poll.poll(0):  # its last words, written since
                    return
                raise self._crash()
            if seconds is not None and left <= LOOK_SECONDS:
                raise Hung(f"no progress in {seconds:g} s; its process was killed")

    def _crash(self) -> Crashed:
        """Explain how a child ended that closed its pipe, or left it to others."""
        assert self._child is not None
        assert self._stderr is not None
        try:
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Crashed("its process stopped answering")
        how = f"with exit code {code}"
        if code < 0:
            how = f"of {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += " (out of memory?)"
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4096))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return Crashed(f"its process died {how}{': ' + scrub(lines[-1].strip())[:200] if lines else ''}")


def _error(row: Mapping[str, Any]) -> DailiesError:
    error = error_of(row)
    return error if isinstance(error, DailiesError) else Defect(str(error))


def _environment() -> dict[str, str]:
    """Return this process's environment without what opens a cluster: the child reads what others made."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


# ---- in the child ---------------------------------------------------------------------------------------------------


def _serve(function: str, parent: int, stall: float, memory_gb: float) -> None:
    """Answer requests until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # from here on, nothing that reads or prints can disturb the protocol
    os.dup2(2, 1)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if memory_gb:
        import resource

        limit = int(memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    module, name = function.split(":")
    kind, work = _attempt(lambda: getattr(importlib.import_module(module), name))
    _say(answers, kind, work if kind == "raised" else None)
    with opening_by(SourcePolicy.from_json(os.environ[POLICY])):
        while len(header := requests.read(HEADER.size)) == HEADER.size:
            request, heartbeat = requests.read(HEADER.unpack(header)[0]), _beater(answers, stall)
            answer = _attempt(partial(_perform, work, request, heartbeat))
            faulthandler.cancel_dump_traceback_later()
            _say(answers, *answer)


def _perform(work: Callable[..., Any], request: bytes, heartbeat: Callable[[], None]) -> Any:
    return work(*pickle.loads(request), heartbeat)


def _attempt(work: Callable[[], Any]) -> tuple[str, Any]:
    """Return ("done", what ``work`` returns) or ("raised", what the parent is to raise)."""
    try:
        return "done", work()
    except Exception as error:
        if lacks_memory(error):  # the limit is this process's own, and one item went over it
            return "raised", Crashed("its process ran out of memory")
        try:
            return "raised", item_error(error)
        except DailiesError as stopping:
            return "raised", stopping


def _say(answers: IO[bytes], kind: str, value: Any) -> None:
    try:
        parts = pack({"kind": kind, "value": error_row(value) if kind == "raised" else value})
    except Exception as error:
        parts = pack({"kind": "raised", "value": error_row(Defect(f"{kind} with what does not travel: {error}"))})
    answers.write(HEADER.pack(sum(map(len, parts))))
    for part in parts:
        answers.write(part)
    answers.flush()


def _beater(answers: IO[bytes], stall: float) -> Callable[[], None]:
    """Return a new ``heartbeat``, the first of which is given at once. ``stall`` of 0: no limit."""
    last = -HEARTBEAT_SECONDS

    def heartbeat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= HEARTBEAT_SECONDS:
            last = now
            # Should the parent be gone while C code holds the GIL, this thread, which needs no GIL, ends the child.
            if stall:
                faulthandler.dump_traceback_later(2 * stall + 5, exit=True)
            _say(answers, "heartbeat", None)

    heartbeat()
    return heartbeat


def _follow(parent: int) -> None:
    """Kill this process and all that it started when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    from dailies.pipelines.isolate import _serve as serve  # under its own name, by which the parent knows its classes

    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    os._exit(0)  # decoder threads that are stuck must not keep it
