"""The engine runs one stage's bundles through workers, on Ray Data or as a plain loop, and yields receipts as they come.

A stage is a small picklable ``Work``. What it opens in a worker takes a bundle of units (an Arrow table) and returns
a receipt for what it wrote; pixels and JPEGs stay in the worker. Both engines call the same function on the same
bundles, so they write the same rows and raise the same errors.
"""

from __future__ import annotations

import logging
import os
import pickle
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa

from dailies.curation.errors import UsageError, stopping_error
from dailies.curation.types import Resources
from dailies.pipelines import clusters

Engine = Literal["ray", "local"]
SLICE = 4096  # bundles per Ray Data execution, which the driver and the object store hold at once
Call = Callable[[pa.Table], Any]
PACKAGES = ("dailies", "av", "cv2", "deltalake", "fsspec", "numpy", "pyarrow")
"""What every stage imports in a worker or its child process."""


class Work(Protocol):
    """A stage's work: a spec that travels to workers."""

    @property
    def name(self) -> str: ...

    @property
    def resources(self) -> Resources: ...

    def open(self) -> AbstractContextManager[Call]:
        """Load what the work needs, once per worker; the call turns a bundle into a picklable receipt."""


def check_engine(name: str) -> Engine:
    """Return ``name`` as an engine. Raises ``UsageError`` for a name that is none, such as a typo."""
    for engine in get_args(Engine):
        if name == engine:
            return engine  # type: ignore[no-any-return]
    raise UsageError(f"engine={name}: no such engine; use {' or '.join(get_args(Engine))}")


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

    owned = not ray.is_initialized()
    if owned:
        clusters.join()
    try:
        if len(ray.nodes()) > 1 or not owned or os.environ.get("RAY_ADDRESS"):  # Ray finds a cluster by itself, too
            clusters.check_packages((*PACKAGES, *packages))
        yield
    finally:
        if owned:
            ray.shutdown()


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
    with work.open() as call:
        for bundle in bundles:
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
    batches = receipts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    with closing(clusters.explained(iter(batches))) as outcomes:
        for batch in outcomes:
            for receipt in batch["receipt"].to_pylist():
                outcome = pickle.loads(receipt)
                if isinstance(outcome, _Raised):
                    raise outcome.error
                yield outcome


@dataclass(frozen=True)
class _Raised:
    """An exception on its way to the driver: Ray would wrap it into one of its own types."""

    error: Exception


class _Actor:
    """A worker that keeps the opened work for as long as it lives."""

    def __init__(self, work: Work) -> None:
        self._stack = ExitStack()
        self._work = work
        self._call: Call | None = None

    def __call__(self, bundle: pa.Table) -> pa.Table:
        try:
            if self._call is None:
                self._call = self._stack.enter_context(self._work.open())
            receipt = pickle.dumps(self._call(bundle))
        except Exception as error:
            error = stopping_error(error) or error  # here, where it can name the machine
            receipt = _dump_error(error, f"in a worker of stage {self._work.name}:\n{traceback.format_exc()}")
        return pa.table({"receipt": pa.array([receipt], pa.binary())})

    def close(self) -> None:
        self._stack.close()


def _dump_error(error: Exception, note: str) -> bytes:
    """Pickle ``error`` with ``note`` for the driver; as a ``RuntimeError`` of its own words where its type does not survive."""
    error.add_note(note)
    try:
        pickled = pickle.dumps(_Raised(error))
        pickle.loads(pickled)  # an exception whose arguments are not those of its constructor fails here
        return pickled
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.add_note(note)
        return pickle.dumps(_Raised(plain))


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
