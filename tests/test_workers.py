"""What workers of a training run hand back: lines, and errors of the class that they are."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dailies.curation import errors
from dailies.curation.errors import DailiesError, ExportError, NotFinite, OutOfMemory
from dailies.pipelines.workers import Lines, Say, call_worker, decode_error, encode_error, run_workers

ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, DailiesError)]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_arrives_as_the_class_that_it_is(kind: type[DailiesError]) -> None:
    again = decode_error(encode_error(kind("phase \u2018image\u2019: too much,\nin two lines")))
    assert type(again) is kind
    assert str(again) == "phase \u2018image\u2019: too much,\nin two lines"


def test_what_is_no_error_of_ours_becomes_the_base() -> None:
    assert type(decode_error('{"type": "annotations", "message": "x"}')) is DailiesError
    assert type(decode_error('{"type": "Later", "message": "x"}')) is DailiesError


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    made = Lines(tmp_path / "ray")
    made.begin()
    return made


def failing(error: Exception) -> tuple[list[int], Say]:
    calls: list[int] = []

    def work(say: Say) -> None:
        calls.append(1)
        raise error

    return calls, work  # type: ignore[return-value]


def test_a_loss_that_is_not_finite_ends_all_workers_without_a_restart(lines: Lines) -> None:
    calls, work = failing(NotFinite("step 3"))
    call_worker(work, lines)  # type: ignore[arg-type]
    error = lines.error()
    assert (type(error), str(error), len(calls)) == (NotFinite, "step 3", 1)


@pytest.mark.parametrize("kind", [OutOfMemory, ExportError])
def test_what_may_end_one_worker_alone_is_raised_and_not_tried_again(kind: type[DailiesError], lines: Lines) -> None:
    calls, work = failing(kind("lower the batch"))
    with pytest.raises(kind):
        call_worker(work, lines)  # type: ignore[arg-type]
    call_worker(work, lines)  # type: ignore[arg-type]
    assert len(calls) == 1
    assert type(lines.error()) is kind
    lines.begin()
    assert lines.error() is None


def test_any_other_error_keeps_its_traceback_and_is_tried_again(lines: Lines) -> None:
    calls, work = failing(ZeroDivisionError("a fault of ours"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call_worker(work, lines)  # type: ignore[arg-type]
    assert len(calls) == 2
    assert lines.error() is None
    assert "in work" in lines.traceback()
    assert lines.traceback().endswith("ZeroDivisionError: a fault of ours\n")


def test_lines_of_workers_are_printed_here_in_their_order(lines: Lines) -> None:
    said: list[str] = []
    with lines.follow(said.append):
        worker = threading.Thread(target=lambda: [lines.say(f"step {n}") for n in range(20)])
        worker.start()
        worker.join()
    assert said == [f"step {n}" for n in range(20)]


@pytest.mark.slow
def test_on_ray_an_error_of_one_worker_is_raised_here_while_the_others_wait(tmp_path: Path) -> None:
    pytest.importorskip("torch")

    def work(say: Say) -> None:
        from dailies.training import distributed

        if distributed.world().rank == 1:
            say("the second is about to fail")
            raise OutOfMemory("phase image: lower the batch")
        distributed.barrier()

    said: list[str] = []
    with pytest.raises(OutOfMemory, match=r"^phase image: lower the batch$"):
        run_workers(work, tmp_path, 2, device="cpu", say=said.append)
    assert said == ["the second is about to fail"]
