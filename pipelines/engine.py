"""The engine runs one stage's bundles through workers, in processes here or on Ray, and yields receipts as they come.

A stage is a small picklable ``Work``. What it opens in a worker takes a bundle of units (an Arrow table) and returns
a receipt for what it wrote; pixels and JPEGs stay in the worker. Receipts and errors come back as JSON. Both engines call
the same function on the same bundles, so they write the same rows and raise the same errors. A stage without a bundle
starts nothing, and Ray is not imported before a stage runs on it.

``auto`` takes Ray for a cluster, and to share this machine's GPUs among several workers; anything else is done as fast
by plain processes, which start sooner (docs/performance.md).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import chain, islice
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa
from pydantic import TypeAdapter

from dailies.curation.addresses import guard_logs
from dailies.curation.config import offered
from dailies.curation.cores import limit_opencv
from dailies.curation.errors import NotInstalled, UsageError, stopping_error
from dailies.curation.types import Resources
from dailies.pipelines import capacity, clusters
from dailies.pipelines.answers import error_of, error_row
from dailies.pipelines.isolate import Isolated
from dailies.pipelines.processes import ALONE_SECONDS, Processes, There, travels

Engine = Literal["auto", "local", "ray"]
MEMORY_SHARE = 0.8  # of the memory that is free, which the workers of a stage may need together
PROCESS_GB = 0.3  # that a worker takes with its imports and a child that decodes, whatever it declares
SLICE = 4096  # bundles per Ray Data execution, which the driver and the object store hold at once
Call = Callable[[pa.Table], Any]
PACKAGES = ("dailies", "av", "cv2", "deltalake", "fsspec", "numpy", "pyarrow")
"""What every stage imports in a worker or its child process."""
OUTCOME = pa.schema([pa.field("receipt", pa.string()), pa.field("error", pa.string())])
"""What a bundle comes to: JSON, one of both."""

log = logging.getLogger("dailies")


class Work(Protocol):
    """A stage's work: a spec that travels to workers."""

    @property
    def name(self) -> str: ...

    @property
    def resources(self) -> Resources: ...

    @property
    def receipt(self) -> type:
        """Type of the receipts, which are plain data or dataclasses of such; another from a worker is refused."""

    def open(self) -> AbstractContextManager[Call]:
        """Load what the work needs, once per worker; the call turns a bundle into a receipt."""


def check_engine(name: str) -> Engine:
    """Return ``name`` as an engine. Raises ``UsageError`` for a name that is none, such as a typo."""
    for engine in get_args(Engine):
        if name == engine:
            return engine  # type: ignore[no-any-return]
    raise UsageError(f"engine={name}: no such engine{offered(name, get_args(Engine))}")


def choose(engine: Engine, *, cluster: bool, gpus: float = 0, gpus_here: int = 0) -> Literal["local", "ray"]:
    """Return where a stage runs whose workers take ``gpus`` each.

    ``cluster``: whether there is one to run on; ``gpus_here``: how many GPUs are known on this machine. One worker with a
    GPU is done in this process. Ray shares GPUs out to several, and knows other makers' GPUs or says that there is none.
    """
    if engine != "auto":
        return engine
    return "ray" if cluster or (gpus > 0 and gpus_here // gpus != 1) else "local"


class Session:
    """The engine for the length of a run: what a stage starts serves the next ones too."""

    def __init__(self, engine: Engine, packages: Iterable[str], workers: int | None, stack: ExitStack) -> None:
        self._engine, self._packages, self._stack = check_engine(engine), tuple(packages), stack
        self.workers = workers
        self._ray = self._cluster = False
        if engine != "local":
            self._cluster = _in_ray() or clusters.address() is not None
            if not _in_ray():
                clusters.check_answer()
        self.processes = Processes(f"{__name__}:serve", dict[str, Any])
        stack.callback(self.processes.close)

    def chosen(self, gpus: float) -> Literal["local", "ray"]:
        return choose(self._engine, cluster=self._cluster, gpus=gpus, gpus_here=capacity.gpus())

    def prepare(self, work: Work) -> None:
        """Start what ``work`` runs on. Whoever shows how far the work is calls this first: a refusal is one line then.

        Raises as ``start_ray`` does.
        """
        if self.chosen(work.resources.gpus) == "ray":
            self.start_ray()

    def start_ray(self) -> None:
        """Join the cluster at ``RAY_ADDRESS`` or start one on this machine, unless that is done.

        Raises ``UsageError`` where the cluster does not answer or refuses, and ``NotInstalled`` where one of its nodes
        lacks a package.
        """
        if self._ray:
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not _in_ray():
            self._stack.enter_context(clusters.joined())
        guard_logs("ray")
        if self._cluster:
            clusters.check_packages((*PACKAGES, *self._packages))
        self._ray = True


@contextmanager
def session(engine: Engine, packages: Iterable[str] = (), workers: int | None = None) -> Iterator[Session]:
    """Open the engine for the length of a run. Nothing starts before a stage has work.

    Args:
        packages: Importable names that a worker needs, besides those of every stage.
        workers: Most workers of a stage; 1 is a plain loop in this process, unless on Ray. By default one for each CPU.

    Raises ``UsageError`` for a name that is no engine, and for a ``RAY_ADDRESS`` at which no cluster answers.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers={workers}: must be at least 1")
    with ExitStack() as stack:
        yield Session(engine, packages, workers, stack)


def run(work: Work, bundles: Iterable[pa.Table], session: Session) -> Iterator[Any]:
    """Run ``work`` over ``bundles`` and yield its receipts as they finish, in any order.

    Raises ``UsageError`` when the cluster cannot place a single worker, what the work raises, and in place of what is no
    item's fault, such as a full disk, one line that says so.
    """
    bundles = iter(bundles)
    first = list(islice(bundles, 2))
    if not first:
        return
    bundles = chain(first, bundles)
    try:
        if session.chosen(work.resources.gpus) == "ray":
            yield from _ray(work, bundles, session)
        else:
            yield from _local(work, bundles, session, several=len(first) > 1)
    except Exception as error:
        if (stopping := stopping_error(error)) is None or stopping is error:
            raise
        raise stopping from error


def _in_ray() -> bool:
    """Return whether this process has joined a cluster by itself."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


# ---- on this machine ------------------------------------------------------------------------------------------------


def _local(work: Work, bundles: Iterator[pa.Table], session: Session, *, several: bool) -> Iterator[Any]:
    workers = session.workers or capacity.cpus()
    with ExitStack() as stack:
        here = _Opened(work, threads=None if workers == 1 or work.resources.gpus else 1)
        most = _fitting(work, workers) if several else 1
        stuck = most > 1 and not travels(work)
        if most > 1 and not stuck:
            yield from stack.enter_context(closing(session.processes.share(bundles, _there(work), here, most)))
            return
        began, call = time.monotonic(), stack.enter_context(here)
        for bundle in bundles:
            yield call(bundle)
            if stuck and time.monotonic() - began > ALONE_SECONDS:
                log.warning(
                    f"stage {work.name}: its class lies in the running script, which other processes cannot import, so it "
                    "runs in one process; put it into a file of its own"
                )
                stuck = False


def _fitting(work: Work, workers: int) -> int:
    """Return how many of ``workers``, a CPU each, may run ``work`` here: those that memory suffices for; one with a GPU."""
    needs = work.resources
    if needs.gpus:
        return 1
    by_memory = MEMORY_SHARE * capacity.free_memory() / max(needs.memory_gb, PROCESS_GB)
    return int(min(workers / max(needs.cpus, 1), by_memory, needs.workers or workers))


class _Opened:
    """Opens the work in this process. ``threads``: how many torch may use, so that sums come out as in other processes."""

    def __init__(self, work: Work, threads: int | None) -> None:
        self._work, self._threads, self._stack = work, threads, ExitStack()

    def __enter__(self) -> Call:
        with ExitStack() as stack:
            call = stack.enter_context(self._work.open())
            torch: Any = sys.modules.get("torch")
            if self._threads is not None and torch is not None:
                stack.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(self._threads)
            self._stack = stack.pop_all()
            return call

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)


def _there(work: Work) -> There[pa.Table, Any]:
    token, adapter = uuid.uuid4().hex, TypeAdapter[Any](work.receipt)

    def call(child: Isolated, bundle: pa.Table) -> Any:
        stream = pa.BufferOutputStream()  # a pickle of a slice would hold the whole table
        with pa.ipc.new_stream(stream, bundle.schema) as writer:
            writer.write_table(bundle)
        outcome = child.call(stream.getvalue().to_pybytes(), work, token)
        if isinstance(error := _error(outcome), NotInstalled):
            raise error
        return outcome

    return There(work.name, call, lambda answer: _receipt(adapter, answer), lambda child: child.call(None, None, ""))


def serve(bundle: bytes | None, work: Work | None, token: str, heartbeat: Callable[[], None]) -> dict[str, Any]:
    """Run ``work`` on a bundle in a process of this machine; without one, close what it has open."""
    if bundle is None or work is None:
        _close_kept()
        return {}
    with pa.ipc.open_stream(bundle) as reader:
        (outcome,) = _task(reader.read_all(), work, token).to_pylist()
    return dict(outcome)


# ---- on Ray ---------------------------------------------------------------------------------------------------------


def _ray(work: Work, bundles: Iterator[pa.Table], session: Session) -> Iterator[Any]:
    session.prepare(work)
    while blocks := list(islice(bundles, SLICE)):
        yield from _slice(work, blocks, session.workers or len(blocks))


def _slice(work: Work, blocks: list[pa.Table], most: int) -> Iterator[Any]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing it has set its own level
    workers = min(len(blocks), most, placeable(work, ray.cluster_resources()), work.resources.workers or most)
    clusters.await_place(work.name, _demands(work))
    DataContext.get_current().enable_progress_bars = False
    # Ray keeps the processes of plain tasks from stage to stage, which saves seconds at each. It ends a process that used
    # a GPU after each task, so work on a GPU, which loads weights, runs in actors.
    gpu, token = work.resources.gpus, uuid.uuid4().hex
    receipts = ray.data.from_arrow(blocks).map_batches(
        _Actor if gpu else _task,
        **({"fn_constructor_args": (work,)} if gpu else {"fn_args": (work, token)}),
        # A block is a bundle. For work on a GPU Ray wants a number, by which it may put two small blocks together.
        batch_size=max(map(len, blocks)) if gpu else None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers) if gpu else TaskPoolStrategy(size=workers),
        num_cpus=work.resources.cpus,
        num_gpus=gpu or None,
    )
    adapter: TypeAdapter[Any] = TypeAdapter(work.receipt)
    batches = receipts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    with closing(clusters.explained(iter(batches))) as outcomes:
        for batch in outcomes:
            for outcome in batch.to_pylist():
                yield _receipt(adapter, outcome)


def placeable(work: Work, cluster: dict[str, float]) -> int:
    """Return how many workers of ``work`` fit the cluster. Raises ``UsageError`` naming what is missing."""
    fits = []
    for resource, demand in _demands(work).items():
        capacity = cluster.get(resource, 0.0)
        if demand and capacity < demand:
            needed = f"{demand / 1e9:g} GB memory" if resource == "memory" else f"{demand:g} {resource}"
            available = f"{capacity / 1e9:.1f} GB" if resource == "memory" else f"{capacity:g}"
            raise UsageError(f"stage {work.name} needs {needed} per worker; the cluster has {available}")
        if demand:
            fits.append(int(capacity / demand + 1e-9))  # ten workers with a tenth of a GPU each fit one
    return max(1, min(fits))


def _demands(work: Work) -> dict[str, float]:
    """Return what one worker needs, by Ray's names."""
    return {"CPU": work.resources.cpus, "GPU": work.resources.gpus, "memory": work.resources.memory_gb * 1e9}


# ---- in a worker ----------------------------------------------------------------------------------------------------


def _receipt(adapter: TypeAdapter[Any], outcome: Mapping[str, Any]) -> Any:
    """Return the receipt that a worker's ``OUTCOME`` holds, or raise its error."""
    if (error := _error(outcome)) is not None:
        raise error
    return adapter.validate_json(outcome["receipt"])


def _error(outcome: Mapping[str, Any]) -> Exception | None:
    return None if outcome["error"] is None else error_of(json.loads(outcome["error"]))


class _Actor:
    """A worker that keeps the opened work for as long as it lives."""

    def __init__(self, work: Work) -> None:
        limit_opencv(work.resources.cpus)  # all else heeds OMP_NUM_THREADS, which Ray sets to the same
        self._stack = ExitStack()
        self._work = work
        self._call: Call | None = None
        self._adapter: TypeAdapter[Any] = TypeAdapter(work.receipt)

    def __call__(self, bundle: pa.Table) -> pa.Table:
        try:
            if self._call is None:
                self._call = self._stack.enter_context(self._work.open())
            outcome = {"receipt": self._adapter.dump_json(self._call(bundle)).decode(), "error": None}
        except Exception as error:
            error = stopping_error(error) or error  # here, where it can name the machine
            error.add_note(f"in a worker of stage {self._work.name}:\n{traceback.format_exc()}")
            outcome = {"receipt": None, "error": json.dumps(error_row(error))}
        return pa.Table.from_pylist([outcome], schema=OUTCOME)

    def close(self) -> None:
        self._stack.close()


_kept: dict[str, _Actor] = {}
"""The work that this worker process has open, by stage, so that the next bundle of the stage need not open it."""


def _task(bundle: pa.Table, work: Work, token: str) -> pa.Table:
    """Run ``work`` on ``bundle``; ``token`` identifies the stage."""
    if token not in _kept:
        _close_kept()
        _kept[token] = _Actor(work)
    return _kept[token](bundle)


def _close_kept() -> None:
    for token in tuple(_kept):
        _kept.pop(token).close()
