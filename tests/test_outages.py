"""Stores that fail for a moment: what is asked is asked again, a commit is known as ours, and errors keep their cause."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import fsspec
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem

from dailies.curation import retrying, schema, video
from dailies.curation.errors import DatasetError, Outage, Unreadable, UsageError
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.curation.retrying import cause_of, lasting, retried
from dailies.curation.sources import list_sources
from dailies.curation.tables import DatasetTables
from dailies.curation.tables.filesystem import steady
from dailies.curation.tables.parts import read_part
from tests.cutting_proxy import Fault, Proxy, cutting_proxy
from tests.dataset_builder import OBSERVATIONS, observation
from tests.rendered_video import render
from tests.s3_server import s3_server

pytest.importorskip("moto.server", reason="needs moto[s3] and flask: a real S3 server")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.01)


@pytest.fixture(autouse=True)
def private_hosts() -> Iterator[None]:
    """The proxy is on this machine."""
    with opening_by(SourcePolicy(private_hosts=True)):
        yield


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, Proxy]]:
    """A bucket's URL, which leads through the proxy."""
    with s3_server("videos") as bucket:
        server = urlsplit(os.environ["AWS_ENDPOINT_URL"])
        assert server.hostname
        assert server.port
        with cutting_proxy(server.hostname, server.port) as proxy, pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", proxy.url)
            yield bucket, proxy


@pytest.fixture
def dataset(store: tuple[str, Proxy], request: pytest.FixtureRequest) -> Iterator[DatasetTables]:
    bucket, proxy = store
    dataset = DatasetTables.create(f"{bucket}/{abs(hash(request.node.name))}")
    dataset.table(OBSERVATIONS, schema.OBSERVATIONS).append([observation("a")])
    yield dataset
    proxy.choose = lambda method, path: None


def sources_of(dataset: DatasetTables) -> list[str]:
    return sorted(DatasetTables.open(dataset.url).table(OBSERVATIONS).read(["source_id"])["source_id"].to_pylist())


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["list-type=2", "_delta_log", ".parquet", "dataset.json"])
@pytest.mark.parametrize("fault", ["cut", "lose"])
def test_an_answer_that_is_cut_or_lost_is_asked_for_again(
    fault: Fault, part: str, dataset: DatasetTables, store: tuple[str, Proxy]
) -> None:
    proxy = store[1]
    before = proxy.faults
    proxy.once(fault, "GET", part)
    assert sources_of(dataset) == ["a"]
    assert proxy.faults == before + 1


@pytest.mark.parametrize("fault", ["cut", "lose", "busy"])
def test_a_part_is_read_whole_whichever_answer_breaks_off(
    fault: Fault, dataset: DatasetTables, store: tuple[str, Proxy]
) -> None:
    proxy, asked = store[1], 0
    table = dataset.table(OBSERVATIONS)
    rows = repr(table.read().to_pylist())  # a fixture's NaN is not equal to itself

    def every_second(method: str, path: str) -> Fault | None:
        nonlocal asked
        asked += ".parquet" in path
        return fault if ".parquet" in path and asked % 2 else None

    proxy.choose, before = every_second, proxy.faults
    assert repr(table.read().to_pylist()) == rows
    (place,) = table.located(["source_id"]).to_pylist()
    assert [part["source_id"].to_pylist() for part in read_part(place["file"], ["source_id"], source_ids=["a"])] == [
        ["a"]
    ]
    assert proxy.faults > before + 2


@pytest.mark.parametrize("part", ["_delta_log", ".parquet"])
def test_a_commit_whose_answer_was_lost_is_ours_and_made_once(
    part: str, dataset: DatasetTables, store: tuple[str, Proxy]
) -> None:
    proxy = store[1]
    table = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
    before = proxy.faults
    proxy.once("lose", "PUT", part)
    table.append([observation("b")])
    table.append([observation("c")])
    assert proxy.faults == before + 1
    assert table.version() == 2
    assert sources_of(dataset) == ["a", "b", "c"]
    proxy.once("lose", "PUT", "_delta_log")
    assert table.delete(["b"]) == 1
    assert sources_of(dataset) == ["a", "c"]


@pytest.mark.parametrize("part", ["uploads", "partNumber", "uploadId"])
@pytest.mark.parametrize("fault", ["cut", "lose", "busy"])
def test_a_file_is_written_whole_whatever_becomes_of_an_answer(
    fault: Fault, part: str, dataset: DatasetTables, store: tuple[str, Proxy]
) -> None:
    """An upload begins, sends its parts and is completed."""
    proxy, content = store[1], os.urandom(6_000_000)
    before = proxy.faults
    proxy.once(fault, "PUT" if part == "partNumber" else "POST", part)
    dataset.folder.write("file", content)
    assert proxy.faults == before + 1
    assert dataset.folder.read("file") == content


class BreaksOff(io.BytesIO):
    """Every second read is cut off, and has taken its bytes along."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.reads += 1
        if self.reads % 2:
            raise OSError("broken off")
        return content


class BreakingStore(MemoryFileSystem):  # type: ignore[misc]
    cachable = False

    def _open(self, path: str, mode: str = "rb", **options: object) -> BreaksOff:
        return BreaksOff(self.store[path].getvalue())


def test_a_read_that_breaks_off_is_asked_for_from_where_it_began() -> None:
    content = bytes(range(100))
    MemoryFileSystem().pipe_file("/file", content)
    steadied = steady(pafs.PyFileSystem(pafs.FSSpecHandler(BreakingStore())), "memory")
    for opened in (steadied.open_input_file, steadied.open_input_stream):
        with opened("/file") as file:
            assert [file.read(10), file.read(20), file.read()] == [content[:10], content[10:30], content[30:]]


def test_errors_of_a_store_keep_their_cause(dataset: DatasetTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    with pytest.raises(DatasetError, match=r"URL scheme is not allowed; an http:// endpoint needs AWS_ALLOW_HTTP=true"):
        DatasetTables.open(dataset.url).table(OBSERVATIONS).version()


def test_without_credentials_a_store_keeps_what_is_no_dataset(
    store: tuple[str, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow then sends an upload in frames of which it says nothing that is signed."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        DatasetError, match=r"dataset\.json: is not JSON: .*; no credentials were found; set AWS_ACCESS"
    ):
        DatasetTables.create(f"{store[0]}/nobody")


@pytest.mark.parametrize("kind", ["table", "source of s3", "source of http"])
def test_a_store_that_no_server_answers_for_is_said_at_once(
    kind: str, store: tuple[str, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", dead)
    S3FileSystem.clear_instance_cache()
    source = f"{dead}/film.mp4" if kind == "source of http" else f"{store[0]}/film.mp4"

    def reach() -> None:
        if kind == "table":
            DatasetTables.open(f"{store[0]}/nothing")
        else:
            list(list_sources([source]))

    pauses: list[float] = []
    monkeypatch.setattr(retrying, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    with pytest.raises((Outage, UsageError), match="check the network, the address and AWS_ENDPOINT_URL"):
        reach()
    assert pauses == []
    S3FileSystem.clear_instance_cache()


def test_a_scheme_that_is_none_is_told_from_those_that_are() -> None:
    with pytest.raises(DatasetError, match=r"^s4://a/b: cannot be used: .*s3://, gs:// or abfs://$"):
        DatasetTables.open("s4://a/b")
    with pytest.raises(UsageError, match=r"^s4://a/b: cannot be opened: .*s3://, gs:// or https://$"):
        list(list_sources(["s4://a/b"]))


# ---- sources --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(store: tuple[str, Proxy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that lies in the bucket too."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    render(path, size=(320, 180), options={"crf": "1"})
    fsspec.filesystem("s3").put(str(path), f"{store[0]}/film.mp4", ACL="public-read")
    return path


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_source_whose_bodies_are_cut_is_read_whole(scheme: str, film: Path, store: tuple[str, Proxy]) -> None:
    bucket, proxy = store
    url = f"{bucket}/film.mp4" if scheme == "s3" else f"{proxy.url}/videos/film.mp4"
    asked = 0

    def every_second(method: str, path: str) -> Fault | None:
        nonlocal asked
        asked += method == "GET" and "film.mp4" in path
        return "cut" if method == "GET" and asked % 2 else None

    before = proxy.faults
    proxy.choose = every_second
    assert video.content_id(url) == video.content_id(str(film))
    with video.open_source(url) as source, video.open_source(str(film)) as local:
        assert [picture.pts for picture in source.frames()] == [picture.pts for picture in local.frames()]
        source.check()
    assert proxy.faults > before + 1
    proxy.choose = lambda method, path: None


@pytest.mark.parametrize(
    ("fault", "said"),
    [("busy", r"503"), ("no length", r"the server does not say how long it is \(no Content-Length\)")],
)
def test_a_source_that_cannot_be_had_says_why(fault: Fault, said: str, film: Path, store: tuple[str, Proxy]) -> None:
    proxy = store[1]
    proxy.choose = lambda method, path: fault if "film.mp4" in path else None
    with pytest.raises(Unreadable, match=said):
        video.content_id(f"{proxy.url}/videos/film.mp4")
    proxy.choose = lambda method, path: None
    with pytest.raises(Unreadable, match=r"404"):
        video.content_id(f"{proxy.url}/videos/nothing.mp4")


def test_a_source_that_is_not_public_says_what_to_do(film: Path, store: tuple[str, Proxy]) -> None:
    bucket, proxy = store
    fsspec.filesystem("s3").put(str(film), f"{bucket}/private.mp4")
    for read in (video.content_id, video.size_of):
        with pytest.raises(
            Unreadable, match=r"403.*; the server wants a login or a signature: give a URL that is public"
        ):
            read(f"{proxy.url}/videos/private.mp4")
    with pytest.raises(UsageError, match=r"403.*give a URL that is public"):
        list(list_sources([f"{proxy.url}/videos/private.mp4"]))


def test_a_store_is_asked_for_a_size_once(film: Path, store: tuple[str, Proxy]) -> None:
    bucket, proxy = store
    asked: list[str] = []

    def counted(method: str, path: str) -> Fault | None:
        asked.append(method)
        return None

    proxy.choose = counted
    size = film.stat().st_size
    url = f"{bucket}/film.mp4"
    assert video.content_among(url, {size + 1}) is None
    assert asked == ["HEAD"], "of another size nothing is read"
    asked.clear()
    assert video.content_among(url, {None, size}) == video.content_id(str(film))[0]
    assert asked.count("HEAD") == 1
    proxy.choose = lambda method, path: None


# ---- trying again ---------------------------------------------------------------------------------------------------


def failing(times: int, error: Exception) -> tuple[list[int], object]:
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return calls, work


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class Status(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("the server answered")
        self.status = status


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Exception("whatever a library raises"), True),
        (ConnectionResetError("reset"), True),
        (caused(FileNotFoundError("http://x"), Status(503)), True),
        (caused(FileNotFoundError("http://x"), ConnectionError("refused")), True),
        (Status(429), True),
        (FileNotFoundError("gone"), False),
        (caused(FileNotFoundError("http://x"), Status(404)), False),
        (Status(403), False),
        (PermissionError("denied"), False),
        (ImportError("Install s3fs"), False),
        (DatasetError("another run"), False),
    ],
)
def test_what_passes_is_tried_again_and_what_lasts_is_not(error: Exception, again: bool) -> None:
    assert lasting(error) is not again
    calls, work = failing(2, error)
    if again:
        assert retried(work) == "done"  # type: ignore[arg-type]
        assert len(calls) == 3
    else:
        with pytest.raises(type(error)):
            retried(work)  # type: ignore[arg-type]
        assert len(calls) == 1


def test_tries_end_and_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(retrying.time, "sleep", pauses.append)
    calls, work = failing(100, ConnectionError("away"))
    with pytest.raises(ConnectionError):
        retried(work)  # type: ignore[arg-type]
    assert len(calls) == retrying.ATTEMPTS
    assert all(0.5 * 2**n <= pause <= 1.5 * 2**n for n, pause in enumerate(pauses))
    assert len(pauses) == retrying.ATTEMPTS - 1


def test_the_last_words_of_a_long_error_are_kept() -> None:
    error = OSError("\x1b[31m↳\x1b[0m " + "x" * 5000 + "\n the real reason\n")
    assert cause_of(error).endswith("the real reason")
    assert "\x1b" not in cause_of(error)
    assert len(cause_of(error)) < 500
    denied = OSError("AWS Error ACCESS_DENIED during HeadObject operation " + "y" * 5000 + " AccessDenied")
    assert cause_of(denied).count("they do not allow it") == 1
    hidden = OSError("x" * 3000 + "Unable to locate credentials" + "x" * 3000)
    assert cause_of(hidden).endswith("; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    assert cause_of(caused(FileNotFoundError("http://x"), Status(403))).endswith("or download it first")
    assert cause_of(caused(FileNotFoundError("http://x"), Status(503))) == (
        "the server fails: http://x: the server answered: HTTP status 503"
    )
