"""The engine: the plain loop, processes and Ray hand back the same receipts and raise the same errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from dailies.curation.errors import UsageError
from dailies.curation.types import Resources
from dailies.pipelines import engine as engines
from dailies.pipelines import processes
from dailies.pipelines.answers import error_of


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums bundles; ``error`` is raised for a bundle with a negative number, or by ``open`` if ``at_open``."""

    error: Exception | None = None
    at_open: bool = False
    receipt: ClassVar[type] = int
    name: ClassVar[str] = "sums"
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.1)

    @contextmanager
    def open(self) -> Iterator[engines.Call]:
        if self.at_open and self.error is not None:
            raise self.error

        def call(bundle: pa.Table) -> int:
            numbers = bundle["n"].to_pylist()
            if self.error is not None and min(numbers) < 0:
                raise self.error
            return sum(numbers)

        yield call


BUNDLES = [pa.table({"n": [1, 2]}), pa.table({"n": [3, -1]}), pa.table({"n": [5]})]


@pytest.fixture(scope="module", params=["loop", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def session(request: pytest.FixtureRequest) -> Iterator[engines.Session]:
    with pytest.MonkeyPatch.context() as patch:
        # Workers see no working directory, and the work of these tests lies in the tests' own folder.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        if request.param == "processes":
            nothing_alone(patch)
        workers = {"loop": 1, "processes": 2, "ray": None}[request.param]
        with engines.session("ray" if request.param == "ray" else "local", workers=workers) as session:
            yield session


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes do not see the working directory, which this module must not lie in."""
    monkeypatch.chdir(tmp_path)


def nothing_alone(patch: pytest.MonkeyPatch) -> None:
    """Leave every stage to processes from its start, unless they cannot do it."""
    alone = processes._Sharing.alone
    patch.setattr(
        processes._Sharing, "alone", lambda self, here: iter(()) if self.lacking is None else alone(self, here)
    )


def test_receipts_come_back(session: engines.Session) -> None:
    assert sorted(engines.run(Sums(), BUNDLES, session)) == [2, 3, 5]


def test_a_stage_without_work_opens_nothing(session: engines.Session) -> None:
    assert list(engines.run(Sums(error=ValueError("opened"), at_open=True), [], session)) == []


@dataclass(frozen=True, kw_only=True)
class Threads(Sums):
    """Says on how many threads a worker computes: OpenCV's, and what OMP, BLAS and torch go by."""

    @contextmanager
    def open(self) -> Iterator[engines.Call]:
        import cv2

        yield lambda bundle: 10 * cv2.getNumThreads() + int(os.environ["OMP_NUM_THREADS"])


@pytest.mark.parametrize("session", ["processes", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_worker_computes_on_as_many_threads_as_it_has_cores(session: engines.Session) -> None:
    assert list(engines.run(Threads(), BUNDLES, session)) == [11, 11, 11]


@pytest.mark.parametrize("at_open", [False, True], ids=["in a bundle", "at open"])
@pytest.mark.parametrize("error", [UsageError("model: no such file"), ValueError("lists differ in length")])
def test_an_error_of_the_work_arrives_as_it_is(error: Exception, at_open: bool, session: engines.Session) -> None:
    with pytest.raises(type(error)) as caught:
        list(engines.run(Sums(error=error, at_open=at_open), BUNDLES, session))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if session.workers != 1:
        assert "raise self.error" in caught.value.__notes__[0]  # the worker's traceback


class Odd(Exception):
    """Does not survive: it is of no class that the driver must have."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} {number}")


def test_an_error_that_does_not_survive_its_journey_keeps_its_words_and_traceback() -> None:
    """What the workers of Ray do, without them."""
    bundle = pa.table({"n": [-1]})
    (outcome,) = engines._Actor(Sums(error=Odd("left foot", 3)))(bundle).to_pylist()
    error = error_of(json.loads(outcome["error"]))
    assert type(error) is RuntimeError
    assert str(error) == "Odd: left foot 3"
    assert "in a worker of stage sums" in error.__notes__[0]
    assert "raise self.error" in error.__notes__[0]
