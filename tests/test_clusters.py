"""Ray clusters that are dead, foreign, full or incomplete are one line, and workers do not see the working directory."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pyarrow as pa
import pytest

from dailies.curation import world
from dailies.curation.errors import NotInstalled, UsageError
from dailies.curation.tables import DatasetTables
from dailies.curation.types import Resources
from dailies.pipelines import clusters
from dailies.pipelines import engine as engines
from tests.conftest import Dailies
from tests.test_engine import BUNDLES, Sums

RECIPE = """
name: clips
steps:
  - observe: {observers: [change], evidence: {fps: 2, short_side: 90}}
  - cut: {detector: content, min_seconds: 0.5, max_seconds: 4}
"""


@pytest.fixture
def film(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return world.encode(world.write_script(3, shots=2, shot_frames=(30, 40)), tmp_path / "film.mp4")


@pytest.fixture
def mute() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


class Silent(BaseHTTPRequestHandler):
    """Prints no requests."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def dead() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("kind", "said"),
    [("dead", "no cluster answers there"), ("mute", "no cluster answers there"), ("web", "what answers there is no")],
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_none_is_one_line_soon(
    kind: str,
    said: str,
    scheme: str,
    film: Path,
    dailies: Dailies,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"{scheme}{request.getfixturevalue(kind)}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 1.0)
    began = time.monotonic()
    done = dailies("curate", film, "--out", film.parent / "dataset", "--recipe", film.parent / "recipe.yaml")
    assert time.monotonic() - began < 60, "Ray itself waits for minutes"
    assert done.returncode == 2
    assert done.stderr.startswith(f"dailies: RAY_ADDRESS={address}: {said}")
    assert done.stderr.count("\n") == 1
    assert DatasetTables.open(film.parent / "dataset").tables() == [], "before any work"


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_a_cluster_with_tls_is_not_asked_in_plain_text(value: str, monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dead)
    monkeypatch.setenv("RAY_USE_TLS", value)
    clusters.check_answer()
    monkeypatch.setenv("RAY_USE_TLS", "0")
    with pytest.raises(UsageError, match="no cluster answers there"):
        clusters.check_answer()


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b"\0\0", b"\0\4\0", b"\0\0\0\0"], None),  # as a cluster begins, piece by piece
        ([b"\0\0"], "what answers there is no cluster"),
        ([b"\0"] * 30, "timed out"),  # no piece is late, all of them are
    ],
)
def test_an_answer_may_come_in_pieces(pieces: list[bytes], said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if said == "timed out":
        monkeypatch.setattr(clusters, "ANSWER_SECONDS", 0.5)

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            while len(connection.recv(1 << 10, socket.MSG_PEEK)) < len(clusters.PREFACE):
                time.sleep(0.01)
            connection.recv(1 << 10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        with contextlib.nullcontext() if said is None else pytest.raises(UsageError, match=said):
            clusters.check_answer()
        thread.join()


def test_an_address_that_is_none_is_one_line(film: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "junk")
    done = dailies("curate", film, "--out", film.parent / "dataset", "--recipe", film.parent / "recipe.yaml")
    assert done.returncode == 2
    assert "RAY_ADDRESS=junk: is no address; give HOST:PORT" in done.stderr
    assert done.stderr.count("\n") == 1


SCRIPT = """
import sys
import dailies
done = dailies.curate(sys.argv[1], sys.argv[2], recipe=sys.argv[3], engine=sys.argv[4], progress=dailies.silent)
assert done.sources.ok == 1, done.sources
assert done.clips.counts["ok"] >= 1
"""


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_files_in_the_working_directory_hide_no_module(engine: str, film: Path, tmp_path: Path) -> None:
    """Where Python itself puts the working directory first, as in a notebook and with -c."""
    here = tmp_path / "here"
    (here / "curation").mkdir(parents=True)
    for name in ("av", "curation/__init__"):  # the driver itself imports neither
        (here / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    arguments = [str(film), str(tmp_path / "dataset"), str(tmp_path / "recipe.yaml"), engine]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One CPU, and a GPU in name, which the caller has joined."""
    import ray

    ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_node_that_lacks_a_package_is_named_before_work_starts() -> None:
    with engines.session("ray", ["json", "xml.dom"]) as session:
        session.start_ray()
    with (
        pytest.raises(NotInstalled, match=r"node \S+ lacks no_such_package, nothing\.at_all: install"),
        engines.session("ray", ["json", "no_such_package", "nothing.at_all"]) as session,
    ):
        next(engines.run(Sums(), BUNDLES, session))


@dataclass(frozen=True, kw_only=True)
class Shared(Sums):
    """Work that tells which process did it, with a quarter of a GPU each."""

    resources: ClassVar[Resources] = Resources(cpus=0.1, gpus=0.25, memory_gb=0.1)

    @contextmanager
    def open(self) -> Iterator[Callable[[pa.Table], int]]:
        def call(bundle: pa.Table) -> int:
            time.sleep(1)
            return os.getpid()

        yield call


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_four_workers_share_a_gpu() -> None:
    bundles = [pa.table({"n": [number, number]}) for number in range(9)]
    bundles.append(pa.table({"n": [9]}))  # the last of a stage is smaller
    with engines.session("ray") as session:
        done = list(engines.run(Shared(), bundles, session))
    assert len(done) == 10
    assert len(set(done)) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_full_cluster_is_said_to_be_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(clusters, "FULL_SECONDS", 0.5)
    taken = ray.remote(num_cpus=1)(lambda: time.sleep(4)).remote()
    while ray.available_resources().get("CPU"):
        time.sleep(0.05)
    with engines.session("auto") as session:  # this process has joined a cluster
        assert sorted(engines.run(Sums(), BUNDLES, session)) == [2, 3, 5]
        ray.get(taken)
        assert "stage sums: the cluster is full; waiting for CPU to be free" in caplog.text
        caplog.clear()
        assert sorted(engines.run(Sums(), BUNDLES, session)) == [2, 3, 5]
        assert "full" not in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_package_that_a_worker_lacks_names_its_machine() -> None:
    with (
        engines.session("ray") as session,
        pytest.raises(NotInstalled, match=rf"^{socket.gethostname()}: .*No module named 'x'"),
    ):
        list(engines.run(Sums(error=ImportError("No module named 'x'")), [pa.table({"n": [-1]})], session))


Guarded = tuple[dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A cluster that wants a token: its addresses by their schemes, and the environment that has the token."""
    token = tmp_path_factory.mktemp("secret") / "token"
    token.write_text("0123456789abcdef" * 2)
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(server.getsockname()[1]) for server in (one, other)]
    options = ["--head", "--port", ports[0], "--ray-client-server-port", ports[1], "--num-cpus", "1"]
    options += ["--include-dashboard", "false", "--block"]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # sockets lie in it, whose paths must be short
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--temp-dir", folder]
        head = subprocess.Popen(start, env=os.environ | secret, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and not all(map(answers, ports)):
                time.sleep(0.2)
            yield {"": f"127.0.0.1:{ports[0]}", "ray://": f"ray://127.0.0.1:{ports[1]}"}, secret
        finally:
            head.terminate()
            head.wait()


JOIN = """
from dailies.pipelines import clusters
with clusters.joined():
    import ray
    assert len(ray.nodes()) == 1
    clusters.check_packages(["json"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_wants_a_token_is_joined_with_it(scheme: str, guarded: Guarded) -> None:
    addresses, secret = guarded
    environment = os.environ | secret | {"RAY_ADDRESS": addresses[scheme]}
    done = subprocess.run([sys.executable, "-c", JOIN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "said"),
    [("", "Authentication token is missing or incorrect"), ("ray://", "Invalid or missing authentication token")],
)
def test_a_cluster_that_wants_a_token_is_one_line(scheme: str, said: str, film: Path, guarded: Guarded) -> None:
    """Joined without one, in a process of its own: Ray writes its complaints past Python."""
    address = guarded[0][scheme]
    arguments = ["curate", film, "--out", film.parent / "dataset", "--recipe", film.parent / "recipe.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "dailies", *map(str, arguments)],
        env=os.environ | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"dailies: RAY_ADDRESS={address}: the cluster cannot be joined: {said}; "
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN\n"
    )


def answers(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0
