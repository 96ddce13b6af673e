"""The engine runs one stage's bundles through workers, on Ray Data or as a plain loop, and yields receipts as they come.

A stage is a small picklable ``Work``. What it opens in a worker takes a bundle of units (an Arrow table) and returns
a receipt for what it wrote; pixels and JPEGs stay in the worker. Receipts and errors come back as JSON. Both engines call
the same function on the same bundles, so they write the same rows and raise the same errors.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import islice
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa
from pydantic import TypeAdapter

from dailies.curation.addresses import guard_logs
from dailies.curation.config import offered
from dailies.curation.cores import limit_opencv
from dailies.curation.errors import UsageError, stopping_error
from dailies.curation.types import Resources
from dailies.pipelines import clusters
from dailies.pipelines.answers import error_of, error_row

Engine = Literal["ray", "local"]
SLICE = 4096  # bundles per Ray Data execution, which the driver and the object store hold at once
Call = Callable[[pa.Table], Any]
PACKAGES = ("dailies", "av", "cv2", "deltalake", "fsspec", "numpy", "pyarrow")
"""What every stage imports in a worker or its child process."""
OUTCOME = pa.schema([pa.field("receipt", pa.string()), pa.field("error", pa.string())])
"""What a bundle comes to: JSON, one of both."""


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


@contextmanager
def session(engine: Engine, packages: Iterable[str] = ()) -> Iterator[None]:
    """Start Ray for the length of a run: an existing cluster (``RAY_ADDRESS``) or one on this machine.

    ``packages``: importable names that a worker needs, besides those of every stage. Raises ``UsageError`` where the cluster
    does not answer or refuses, and ``NotInstalled`` where one of its nodes lacks a package.
    """
    if engine == "local":
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with ExitStack() as stack:
        theirs = ray.is_initialized() or clusters.address() is not None
        if not ray.is_initialized():
            stack.enter_context(clusters.joined())
        guard_logs("ray")
        if theirs:
            clusters.check_packages((*PACKAGES, *packages))
        yield


def run(work: Work, bundles: Iterable[pa.Table], engine: Engine) -> Iterator[Any]:
    """Run ``work`` over ``bundles`` and yield its receipts as they finish, in any order.

    Raises ``UsageError`` when the cluster cannot place a single worker, what the work raises, and in place of what is no
    item's fault, such as a full disk, one line that says so.
    """
    try:
        yield from _ray(work, iter(bundles)) if engine == "ray" else _loop(work, bundles)
    except Exception as error:
        if (stopping := stopping_error(error)) is None or stopping is error:
            raise
        raise stopping from error


def _loop(work: Work, bundles: Iterable[pa.Table]) -> Iterator[Any]:
    call: Call | None = None
    with ExitStack() as stack:
        for bundle in bundles:
            if call is None:  # only now: where nothing is to do, no model is loaded
                call = stack.enter_context(work.open())
            yield call(bundle)


def _ray(work: Work, bundles: Iterator[pa.Table]) -> Iterator[Any]:
    while blocks := list(islice(bundles, SLICE)):
        yield from _slice(work, blocks)


def _slice(work: Work, blocks: list[pa.Table]) -> Iterator[Any]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing it has set its own level
    workers = min(len(blocks), placeable(work, ray.cluster_resources()))
    clusters.await_place(work.name, _demands(work))
    DataContext.get_current().enable_progress_bars = False
    # Ray keeps the processes of plain tasks from stage to stage, which saves seconds at each. It ends a process that used
    # a GPU after each task, so work on a GPU, which loads weights, runs in actors.
    gpu, token = work.resources.gpus, uuid.uuid4().hex
    receipts = ray.data.from_arrow(blocks).map_batches(
        _Actor if gpu else _task,
        **({"fn_constructor_args": (work,)} if gpu else {"fn_args": (work, token)}),
        batch_size=None,  # a block is a bundle
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
                if outcome["error"] is not None:
                    raise error_of(json.loads(outcome["error"]))
                yield adapter.validate_json(outcome["receipt"])


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
"""The work that this Ray worker process has open, by stage, so that the next bundle of the stage need not open it."""


def _task(bundle: pa.Table, work: Work, token: str) -> pa.Table:
    """Run ``work`` on ``bundle``; ``token`` identifies the stage."""
    if token not in _kept:
        for other in _kept.values():
            other.close()
        _kept.clear()
        _kept[token] = _Actor(work)
    return _kept[token](bundle)


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
            fits.append(int(capacity // demand))
    return max(1, min(fits))


def _demands(work: Work) -> dict[str, float]:
    """Return what one worker needs, by Ray's names."""
    return {"CPU": work.resources.cpus, "GPU": work.resources.gpus, "memory": work.resources.memory_gb * 1e9}
