"""A Ray cluster is joined, looked over and waited for here; what is wrong with it becomes one line."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from dailies.curation.errors import NotInstalled, Outage, UsageError
from dailies.curation.progress import progress_in_force
from dailies.pipelines import private_cluster

ANSWER_SECONDS = 5.0  # for a cluster to answer at all: Ray itself waits for minutes, and then ends the process
FULL_SECONDS = 5.0  # after which a full cluster is worth a line
PROBE_SECONDS = 60.0  # for a node to start a process that looks for packages
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and empty settings: how a gRPC client begins
FRAME_BYTES = 9  # of the head of an HTTP/2 frame
SETTINGS = 4  # the type of the frame with which a gRPC server answers

log = logging.getLogger("dailies")


def address() -> str | None:
    """Return the cluster that ``RAY_ADDRESS`` names; ``None`` for one of this process's own.

    Raises ``UsageError`` for ``auto``: Ray would join whatever a file names that anyone on the machine can write.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "auto":
        raise UsageError(
            "RAY_ADDRESS=auto: anyone on this machine could name that cluster; give HOST:PORT, or unset RAY_ADDRESS"
        )
    return None if named in ("", "local") else named


@contextmanager
def joined() -> Iterator[None]:
    """Join the cluster at ``RAY_ADDRESS``, or start one on this machine, for the length of a context.

    Its workers do not see the working directory, in which a file may have the name of a module. Raises ``UsageError`` for a
    cluster that does not answer or refuses, such as for want of a token, and ``Outage`` where Ray does not start here.
    """
    import ray

    check_answer()
    named = address() or ""
    if ":" in named:
        private_cluster.reread()
        with _explained(named):
            _check_token(named)
    with ExitStack() as stack:
        with progress_in_force()("ray", None, "joining the cluster" if named else "starting"):
            if not named:
                folder = stack.enter_context(private_cluster.folder())
                stack.callback(private_cluster.reread)  # whoever uses Ray next has another token
                stack.callback(ray.shutdown)  # before the folder goes
                with private_cluster.environment(), private_cluster.on_loopback():
                    _init(**private_cluster.options(folder))
            else:
                stack.callback(ray.shutdown)
                _init()
        yield


def check_answer() -> None:
    """Raise ``UsageError`` where ``RAY_ADDRESS`` is no address, or nothing answers there as a cluster would.

    Ray is not imported for it. A cluster with TLS is asked only when it is joined.
    """
    named = address()
    if named is None:
        return
    if ":" not in named:
        raise UsageError(f"RAY_ADDRESS={named}: is no address; give HOST:PORT or ray://HOST:PORT")
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):  # as Ray reads it
        _check_answer(named)


def _init(**options: Any) -> None:
    named = address() or ""
    import ray

    private_cluster.reread()
    # A submitted job brings its own config, and Ray's own client sends what it is given as JSON.
    own = named.startswith("ray://") or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    config = None if own else private_cluster.job_config()
    with _explained(named):
        ray.init(
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            job_config=config,
            **options,
        )


@contextmanager
def _explained(named: str) -> Iterator[None]:
    """Say in one line why Ray cannot start, or not join the cluster at ``named``.

    Raises ``Outage`` and ``UsageError``.
    """
    import ray

    with _kept_stderr() as lines:  # Ray repeats there, once a second, why a cluster refuses
        try:
            yield
        except (ImportError, ValueError, OSError, RuntimeError, ray.exceptions.RayError) as error:
            last = re.sub(r"^\[[^]]*\] \S+ ", "", lines()[-1]) if lines() else ""
            text = "; ".join(part for part in (" ".join(str(error).split()), last) if part) or type(error).__name__
            if not named:
                raise Outage(f"engine=ray: Ray cannot start: {text}; --engine local works without it") from error
            raise UsageError(f"RAY_ADDRESS={named}: the cluster cannot be joined: {text}") from error


@contextmanager
def _kept_stderr() -> Iterator[Callable[[], list[str]]]:
    """Keep what this process writes to its stderr meanwhile; yields a function that returns its lines so far."""
    with tempfile.TemporaryFile() as kept:

        def lines() -> list[str]:
            kept.seek(0)
            return kept.read().decode(errors="replace").strip().splitlines()

        sys.stderr.flush()
        own = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(own, 2)
            os.close(own)


def _check_answer(address: str) -> None:
    """Raise ``UsageError`` where no gRPC server, as a cluster is one, answers at ``address``."""
    url = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection((url.hostname, url.port or 10001), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(PREFACE)
            answer = _receive(connection, FRAME_BYTES, ANSWER_SECONDS)
        wrong = "" if answer[3:4] == bytes([SETTINGS]) else "what answers there is no cluster"
    except (OSError, ValueError) as error:
        wrong = f"no cluster answers there ({error})"
    if wrong:
        raise UsageError(f"RAY_ADDRESS={address}: {wrong}; start it, or unset RAY_ADDRESS to use this machine alone")


def _receive(connection: socket.socket, length: int, seconds: float) -> bytes:
    """Return the next ``length`` bytes, fewer where the stream ends. Raises ``TimeoutError`` after ``seconds`` in all."""
    ends, data = time.monotonic() + seconds, b""
    while len(data) < length:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        if not (part := connection.recv(length - len(data))):
            break
        data += part
    return data


def _check_token(address: str) -> None:
    """Raise ``UsageError`` where the cluster refuses for want of the right token; Ray itself would try for half a minute.

    Whatever else is wrong shows when it is joined.
    """
    refused = ""
    if address.startswith("ray://"):
        try:
            import grpc  # type: ignore[import-untyped]
            from ray._private.grpc_utils import init_grpc_channel  # with the environment's token and certificates
        except ImportError:
            return  # Ray 2.50 knows no tokens; without grpc, which its own client needs, joining says so

        try:
            with init_grpc_channel(address.removeprefix("ray://")) as channel:
                channel.unary_unary("/ray.rpc.RayletDriver/ClusterInfo")(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            refused = error.details() if error.code() == grpc.StatusCode.UNAUTHENTICATED else ""
    else:
        import ray
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # of a compiled module

        try:
            GcsClient(address=address, cluster_id=None)
        except ray.exceptions.RayError as error:
            refused = str(error) if type(error).__name__ == "AuthenticationError" else ""  # which Ray 2.50 lacks
    if refused:
        reason = refused.rpartition("InvalidAuthToken: ")[2].partition(". ")[0]
        raise UsageError(
            f"RAY_ADDRESS={address}: the cluster cannot be joined: {reason}; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )


def resources() -> dict[str, float]:
    """Return what the cluster has in all, by Ray's names: CPU, GPU, and memory in bytes."""
    import ray

    return {name: amount for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU", "memory")}


def check_packages(packages: Sequence[str]) -> None:
    """Raise ``NotInstalled`` naming the nodes of the cluster that lack one of ``packages``, by importable names."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def lacking(names: Sequence[str]) -> list[str]:  # a closure travels by value: a node may have no dailies
        from importlib.util import find_spec

        def absent(name: str) -> bool:
            try:
                return find_spec(name) is None
            except ModuleNotFoundError:  # of the package that it is in
                return True

        return [name for name in names if absent(name)]

    probe = ray.remote(num_cpus=0, max_retries=0)(lacking)
    asked = []
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append((node["NodeManagerHostname"], probe.options(scheduling_strategy=there).remote(packages)))
    problems = []
    for name, answer in asked:
        try:
            missing = ray.get(answer, timeout=PROBE_SECONDS)
        except ray.exceptions.RayError:  # it is busy or on its way out; should it lack one, its workers will say so
            continue
        problems += [f"{name} lacks {', '.join(missing)}"] if missing else []
    if problems:
        raise NotInstalled(f"engine=ray: node {'; node '.join(problems)}: install the same packages on every node")


def await_place(stage: str, demands: Mapping[str, float]) -> None:
    """Say so where the cluster has no room for a worker of ``stage`` for some time. Ray itself goes on waiting."""
    import ray

    began = time.monotonic()
    while not _fits(demands, free := ray.available_resources()):
        if time.monotonic() - began > FULL_SECONDS:
            lacking = [name for name, demand in demands.items() if demand > free.get(name, 0.0)]
            log.warning(f"stage {stage}: the cluster is full; waiting for {' and '.join(lacking)} to be free")
            return
        time.sleep(0.25)


def _fits(demands: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(demand <= free.get(name, 0.0) for name, demand in demands.items() if demand)


def explained(batches: Iterator[Any]) -> Generator[Any, None, None]:
    """Yield ``batches``; what the cluster itself raises becomes an ``Outage`` of one line.

    What a worker could not import before it came to our own code becomes ``NotInstalled``.
    """
    import ray

    try:
        yield from batches
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = getattr(error, "cause", None)
        if isinstance(cause, ImportError) or (lines and lines[-1].startswith(("ModuleNotFoundError", "ImportError"))):
            raise NotInstalled(f"engine=ray: a worker cannot import what it needs: {lines[-1]}") from error
        text = lines[0] if lines else type(error).__name__
        raise Outage(f"engine=ray: the cluster failed: {text}; the same command resumes") from error
