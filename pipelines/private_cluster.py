"""A Ray cluster of this process's own, on a machine that others use too: what of it they could reach is shut.

Ray gives everyone its folder in the shared temporary one, listens on every address of the machine, and takes work from
whoever connects. Here it lies in a folder of mode 0700, listens on 127.0.0.1, and asks for a token that is in the
environment of its own processes alone. Its workers do not import from the working directory.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dailies.pipelines.import_path import named_path

HOST = "127.0.0.1"
SOCKETS = 70  # bytes of the longest socket's path below Ray's folder
LONGEST = 107  # bytes of the path of a Unix socket


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for the cluster that only this user can enter. It goes with the context."""
    name = "dailies-" + "x" * 8
    places = [place for place in (tempfile.gettempdir(), "/tmp") if len(f"{place}/{name}/r") + SOCKETS <= LONGEST]
    with tempfile.TemporaryDirectory(
        prefix="dailies-", dir=places[0] if places else None, ignore_cleanup_errors=True
    ) as path:
        yield Path(path)


def options(folder: Path) -> dict[str, Any]:
    """Return what ``ray.init`` needs to start such a cluster in ``folder``, whatever address is written elsewhere."""
    # One level further down: Ray opens its own folder to everyone.
    return {"address": "local", "_temp_dir": str(folder / "r"), "_node_ip_address": HOST}


@contextmanager
def environment() -> Iterator[None]:
    """While the cluster starts: the environment that its processes inherit, and this process goes without."""
    changed = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # only then does Ray take the loopback address for a node's
    }
    if "PYTHONPATH" in os.environ:
        changed["PYTHONPATH"] = named_path(os.environ["PYTHONPATH"])
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def on_loopback() -> Iterator[None]:
    """While the cluster starts: Ray takes the loopback address for this machine's, also where it was imported before."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def reread() -> None:
    """Let Ray read the environment again: it keeps the token that it read when it was imported, or at the last cluster."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def job_config() -> Any:
    """Return a job's config for workers that see neither the working directory nor a script's folder that is the same."""
    from ray.job_config import JobConfig

    class Config(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            """Return whether Ray is to leave the folder of the running script out of the workers' ``sys.path``."""
            return True

    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    known = script != os.path.realpath(os.curdir)
    return JobConfig(_client_job=True) if known else Config(_client_job=True)
