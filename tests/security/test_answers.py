"""A child that was taken over by the file it decodes can answer what it likes: nothing runs in the process that asks."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from dailies.curation.errors import Crashed, DailiesError, Defect, UsageError
from dailies.curation.tables import Receipt
from dailies.curation.types import Cut, Resources
from dailies.pipelines import engine as engines
from dailies.pipelines.answers import TEXT, error_of, error_row, pack, unpack
from dailies.pipelines.isolate import HEADER, Isolated

Beat = Callable[[], None]


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (self.mark, "w"))


def _raw(message: bytes) -> None:
    """Write past the protocol, as code that took the process over may."""
    pipe = max(int(fd) for fd in os.listdir("/proc/self/fd") if _is_pipe(fd))
    while message:
        message = message[os.write(pipe, message) :]


def _is_pipe(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and bool(
            int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8) & os.O_WRONLY
        )
    except OSError:
        return False


def say(what: str, mark: str, heartbeat: Beat) -> None:
    """Answer what no honest child does, and then wait to be read."""
    text = json.dumps
    deep = b"[" * 200_000 + b"]" * 200_000
    messages = {
        "pickle": pickle.dumps(("done", Bomb(mark))),
        "raised pickle": pickle.dumps(("raised", Bomb(mark))),
        "deep": TEXT.pack(len(deep)) + deep,
        "no JSON": TEXT.pack(4) + b"{{{{",
        "text too long": TEXT.pack(1 << 40) + b"[]",
        "objects": _message(
            [{"kind": "done", "value": {"$": "array", "dtype": "|O8", "shape": [1], "buffer": 0}}, [8]], 8
        ),
        "shape": _message(
            [{"kind": "done", "value": {"$": "array", "dtype": "|u1", "shape": [9], "buffer": 0}}, [8]], 8
        ),
        "negative": _message(
            [{"kind": "done", "value": {"$": "array", "dtype": "|u1", "shape": [-2, -4], "buffer": 0}}, [8]], 8
        ),
        "twice": _message([{"kind": "done", "value": [{"$": "bytes", "buffer": 0}] * 2}, [8]], 8),
        "no such kind": _message([{"kind": "done", "value": {"$": "pickle", "buffer": 0}}, [8]], 8),
        "no dictionary": _message([{"kind": "done", "value": [1]}, []], 0),
        "no error": _message([{"kind": "raised", "value": ["posix.system", "x"]}, []], 0),
        "system": _message(
            [{"kind": "raised", "value": {"type": "SystemExit", "message": "x", "args": [0], "notes": []}}, []], 0
        ),
    }
    message = messages.get(what, text(what).encode())
    _raw(struct.pack("<Q", 1 << 62) if what == "endless" else HEADER.pack(len(message)) + message)
    time.sleep(30)


def _message(tree: Any, more: int) -> bytes:
    text = json.dumps(tree).encode()
    return TEXT.pack(len(text)) + text + bytes(more)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "what",
    [
        *("pickle", "raised pickle", "deep", "no JSON", "text too long", "objects", "shape", "negative", "twice"),
        *("no such kind", "no dictionary", "no error", "endless"),
    ],
)
def test_an_answer_that_is_none_costs_one_row_and_the_child(what: str, tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    with Isolated(f"{__name__}:say", answer=dict[str, Any], stall_seconds=20) as child:
        with pytest.raises(Crashed, match="its process gave an answer"):
            child.call(what, str(mark))
        assert child.pid is None
    assert not mark.exists()


def test_what_a_child_raises_is_an_error_and_no_way_out(tmp_path: Path) -> None:
    with Isolated(f"{__name__}:say", stall_seconds=20) as child, pytest.raises(Defect, match="SystemExit: x"):
        child.call("system", "")


def environment(heartbeat: Beat) -> list[str]:
    return sorted(os.environ)


def test_the_child_does_not_know_the_token_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with Isolated(f"{__name__}:environment", answer=list[str]) as child:
        assert not [name for name in child.call() if name.startswith("RAY_")]


def test_a_child_speaks_for_the_source_it_was_given_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dailies.curation import schema
    from dailies.pipelines import stages

    class Liar:
        def call(self, source: dict[str, Any], *_: Any) -> dict[str, Any]:
            return schema.empty_row(schema.OBSERVATIONS) | {
                "source_id": "another",
                "unit": "another/0",
                "uri": "/other",
            }

    work = stages.ObserveWork(table=str(tmp_path), observers=[], evidence=Any, stall_seconds=1, segment_seconds=900)  # type: ignore[arg-type]
    source = {"source_id": "mine", "uri": "/mine", "manifest": None, "segment": 0, "segments": None, "origin": None}
    row = work._row(Liar(), source)  # type: ignore[arg-type]
    assert (row["source_id"], row["unit"], row["uri"]) == ("mine", "mine/0", "/mine")


# ---- what travels ---------------------------------------------------------------------------------------------------


def _there_and_back(value: Any) -> Any:
    return unpack(bytearray(b"".join(bytes(part) for part in pack(value))))


def test_values_arrive_as_they_are() -> None:
    floats = [0.1, float("inf"), -0.0, *(float(n) / 3 for n in range(100))]
    value = {
        "none": None,
        "yes": True,
        "text": "é\ud800",
        "bytes": b"\0\xff" * 5000,
        "empty": b"",
        "ints": list(range(-50, 50)),
        "huge": [2**70] * 40,
        "mixed": [1, 2.5, None] * 20,
        "flags": [True, False] * 20,
        "floats": floats,
        "nested": [{"pts": 3, "jpeg": b"abc"}],
        "number": np.float32(0.5),
    }
    back = _there_and_back(value)
    assert back == value | {"number": 0.5}
    assert [type(flag) for flag in back["flags"]] == [bool] * 40
    assert [type(number) for number in back["floats"]] == [float] * len(floats)
    assert np.isnan(_there_and_back([float("nan")] * 40)).all()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float16", ">i4", "bool"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4), (), (7,)])
def test_arrays_arrive_as_they_are(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)) * 2).astype(dtype).reshape(*shape, 2)[..., 0]  # not contiguous
    _, back = _there_and_back([b"x", array])
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()
    assert back.flags.aligned
    assert back.flags.writeable


@pytest.mark.parametrize("value", [{1: 2}, {"$": "bytes"}, object(), lambda: 0, np.array(["a"]), {"a": {1, 2}}])
def test_what_is_no_data_does_not_travel(value: Any) -> None:
    with pytest.raises(TypeError):
        pack(value)


def test_a_dataclass_travels_as_its_fields_and_is_checked(tmp_path: Path) -> None:
    cut = Cut(start=1, end=2, kind="cut", detector="d", strength=1.5, core=(3, 4))
    assert _there_and_back(cut)["core"] == [3, 4]
    with Isolated(f"{__name__}:a_cut", answer=tuple[Cut, int]) as child:
        assert child.call(True) == (cut, 7)
        with pytest.raises(Crashed, match="an answer that is none"):
            child.call(False)


def a_cut(sound: bool, heartbeat: Beat) -> Any:
    cut = Cut(start=1, end=2, kind="cut", detector="d", strength=1.5, core=(3, 4))
    return (cut if sound else "posix.system", 7)


@pytest.mark.parametrize("name", ["posix.system", "Bomb", "os", "annotations", "KeyboardInterrupt", "eval", "type"])
def test_an_error_names_no_other_class(name: str) -> None:
    error = error_of({"type": name, "message": "id", "args": ["id"], "notes": []})
    assert type(error) is RuntimeError
    assert str(error) == f"{name}: id"


def test_errors_arrive_as_they_are() -> None:
    for error in (UsageError("no"), ValueError("a", 1), KeyError("k"), OSError(28, "full"), DailiesError()):
        error.add_note("where")
        back = error_of(json.loads(json.dumps(error_row(error))))
        assert (type(back), str(back), back.__notes__) == (type(error), str(error), ["where"])


# ---- receipts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Writes:
    """Gives what it is told as its receipt."""

    answer: Any
    receipt: ClassVar[type] = Receipt
    name: ClassVar[str] = "writes"
    resources: ClassVar[Resources] = Resources()

    @contextmanager
    def open(self) -> Iterator[engines.Call]:
        yield lambda bundle: self.answer


def test_receipts_are_text() -> None:
    receipt = Receipt(path="part-é.parquet", size=3, rows=2, failed=1, keys=("a", "b"), stats="{}")
    (outcome,) = engines._Actor(Writes(answer=receipt))(pa.table({"n": [1]})).to_pylist()
    assert json.loads(outcome["receipt"])["keys"] == ["a", "b"]
    assert engines.TypeAdapter(Receipt).validate_json(outcome["receipt"]) == receipt
    assert outcome["error"] is None


def test_no_module_reads_pickles_of_another_process() -> None:
    """But for the child, which reads its parent's requests."""
    root = Path(sys.modules["dailies.pipelines.isolate"].__file__ or "").parents[1]
    reading = {
        str(path.relative_to(root))
        for room in ("curation", "pipelines", "training", "zoo")
        for path in (root / room).rglob("*.py")
        if "pickle.loads(" in path.read_text() or "pickle.load(" in path.read_text()
    }
    assert reading == {"pipelines/isolate.py"}
