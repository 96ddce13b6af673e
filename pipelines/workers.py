"""Several training processes on Ray Train: what they print is printed here, and what they raise is raised here."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dailies.curation import errors, inside
from dailies.curation.addresses import scrub
from dailies.curation.atomic import write_text
from dailies.curation.errors import DailiesError, NotFinite
from dailies.curation.progress import progress_in_force, reporting, silent
from dailies.pipelines import engine as engines
from dailies.pipelines.relay import Receiver, Sender

Say = Callable[[str], None]
RESTARTS = 3  # of workers that died


def run_workers(work: Callable[[Say], None], out: str | Path, workers: int, *, device: str, say: Say) -> None:
    """Call ``work`` in ``workers`` processes on Ray Train, with a GPU for each where there are some.

    A worker that dies is started again, with all others, and ``work`` goes on from its last checkpoint. An error of
    this project is raised here as the class that it is; any other as a ``DailiesError`` that holds the worker's traceback.

    Args:
        work: Gets the function that prints a line here. It must be picklable by cloudpickle.
        out: A folder that all workers can reach; ``OUT/ray`` is theirs while they run.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from dailies.training.distributed import pick_device

    folder = Path(out).resolve() / "ray"
    lines = Lines(folder)
    lines.begin()

    def worker(_: Mapping[str, Any]) -> None:
        from ray.train import get_context

        with reporting(Sender(lines.say) if get_context().get_world_rank() == 0 else silent):
            call_worker(work, lines)

    scaling = ScalingConfig(num_workers=workers, use_gpu=pick_device(device).type == "cuda")
    failures = FailureConfig(max_failures=RESTARTS)
    with engines.session("ray") as session, lines.follow(say):
        session.start_ray()
        trainer = TorchTrainer(
            worker,
            train_loop_config={},
            scaling_config=scaling,
            run_config=RunConfig(name="ray", storage_path=str(folder.parent), failure_config=failures),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            if (known := lines.error()) is not None:
                raise known from None
            cause = lines.traceback() or str(error.__cause__ or error)
            raise DailiesError(f"training failed on {workers} workers:\n{cause}") from error
    known = lines.error()
    inside.remove_tree(folder.parent, folder.name)
    if known is not None:
        raise known


class Lines:
    """Files in ``folder`` through which workers speak: lines to print, and the error that ended them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log, self._error, self._trace = (folder / name for name in ("log.txt", "error.json", "traceback.txt"))

    def begin(self) -> None:
        inside.make_folder(self.folder.parent, self.folder.name)
        for path in (self._log, self._error, self._trace):
            path.unlink(missing_ok=True)
        os.close(inside.create(self.folder, self._log.name))

    def say(self, line: str) -> None:
        appending = os.O_WRONLY | os.O_APPEND
        with os.fdopen(inside.open_inside(self.folder, self._log.name, appending), "a", encoding="utf-8") as file:
            file.write(scrub(line) + "\n")

    def keep_error(self, error: DailiesError) -> None:
        if not self._error.exists():  # the first; others may follow from it
            write_text(self._error, encode_error(error))

    def keep_traceback(self, text: str) -> None:
        write_text(self._trace, scrub(text))

    def error(self) -> DailiesError | None:
        return decode_error(inside.read_text(self.folder, self._error.name)) if self._error.exists() else None

    def traceback(self) -> str:
        return inside.read_text(self.folder, self._trace.name) if self._trace.exists() else ""

    @contextmanager
    def follow(self, say: Say) -> Iterator[None]:
        """Print here what workers ``say``, and show how far they are."""
        stop = threading.Event()
        receiver = Receiver(progress_in_force())

        def follow() -> None:
            with (
                os.fdopen(inside.open_inside(self.folder, self._log.name), encoding="utf-8") as file,
                closing(receiver),
            ):
                while True:
                    ended = stop.is_set()
                    for line in file:
                        if not receiver.take(line):
                            say(line.rstrip("\n"))
                    if ended:
                        return
                    stop.wait(0.5)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join()


def call_worker(work: Callable[[Say], None], lines: Lines) -> None:
    """Call ``work`` in a worker and keep what it raises for the caller of ``run_workers``.

    A loss that is not finite ends all workers together. Any other error may end one alone while the others wait for it, so
    it is raised, upon which Ray ends them all and starts them again: then there is nothing left to do if it was ours.
    """
    if lines.error() is not None:
        return
    try:
        work(lines.say)
    except NotFinite as error:
        lines.keep_error(error)
    except DailiesError as error:
        lines.keep_error(error)
        raise
    except Exception:
        lines.keep_traceback(traceback.format_exc())
        raise


def encode_error(error: DailiesError) -> str:
    """Write an error of ``curation.errors`` as JSON: its class and its message."""
    return json.dumps({"type": type(error).__name__, "message": scrub(str(error))})


def decode_error(text: str) -> DailiesError:
    """Make the error that ``encode_error`` wrote."""
    row = json.loads(text)
    cls = getattr(errors, row["type"], DailiesError)
    if not (isinstance(cls, type) and issubclass(cls, DailiesError)):
        cls = DailiesError
    error: DailiesError = cls(row["message"])
    return error
