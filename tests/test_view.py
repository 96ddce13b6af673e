"""``dailies view`` answers whoever has its address, and nobody else, with the page and with clips by their ids alone."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation import export_schema, schema
from dailies.curation.errors import UsageError
from dailies.curation.tables import DatasetTables
from dailies.pipelines import again
from dailies.pipelines.maintenance import take_down
from dailies.pipelines.report import Serving, serve
from tests.conftest import Dailies
from tests.report_dataset import Truth, build

MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * 4


def source(truth: Truth, clip: str) -> str:
    return schema.digest("source", truth.ids.index(clip) // 4)


def export(truth: Truth, ids: list[str]) -> None:
    """An export of some clips: with bytes that only claim to be a video, which is enough to be served."""
    dataset = DatasetTables.open(truth.path)
    folder = dataset.folder / "exports" / "export@12345678"
    shape, listed = export_schema.export([]), export_schema.export_index([])
    media = [
        {**schema.empty_row(shape), "clip_id": clip, "source_id": source(truth, clip), "video": MP4 + bytes([number])}
        for number, clip in enumerate(ids)
    ]
    with folder.new_file("data/train-00000-of-00001.parquet") as sink:
        pq.write_table(pa.Table.from_pylist(media, schema=shape), sink, row_group_size=2)
    index = [
        {
            **schema.empty_row(listed),
            "clip_id": clip,
            "source_id": source(truth, clip),
            "split": "train",
            "status": "ok",
            "seconds": 1.0,
            "bytes": 10,
            "lost_seconds": 0.0,
            "shard": "data/train-00000-of-00001.parquet",
            "row_group": number // 2,
            "row": number % 2,
        }
        for number, clip in enumerate(ids)
    ]
    with folder.new_file("index.parquet") as sink:
        pq.write_table(pa.Table.from_pylist(index, schema=listed), sink)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    made = build(tmp_path_factory.mktemp("view") / "dataset", 40)
    kept = [clip for clip, status in zip(made.ids, made.status, strict=True) if status == "ok"]
    export(made, kept[:5])
    return made


@pytest.fixture(scope="module")
def serving(truth: Truth) -> Iterator[Serving]:
    made = serve(str(truth.path))
    Thread(target=made.run, daemon=True).start()
    yield made
    made.stop()


def ask(
    serving: Serving, path: str, *, method: str = "GET", token: bool = True, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    parts = urlsplit(serving.address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        place = f"{parts.path}{path}" if token else path
        connection.putrequest(method, place, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def exported(truth: Truth) -> list[str]:
    index = DatasetTables.open(truth.path).folder / "exports" / "export@12345678"
    return [str(clip) for clip in index.read_parquet("index.parquet", ["clip_id"])["clip_id"].to_pylist()]


def test_the_page_plays_what_is_exported(serving: Serving, truth: Truth) -> None:
    status, body, headers = ask(serving, "")
    assert status == 200
    text = body.decode()
    shown = set(re.findall(r'data-clip="([^"]+)"', text))
    assert shown
    assert shown <= set(exported(truth))
    assert "media-src &#39;self&#39;" in text
    assert headers["Cache-Control"] == "no-store"
    assert urlsplit(serving.address).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    ("asked", "status", "part", "place"),
    [
        ("", 200, slice(None), None),
        ("bytes=0-", 206, slice(None), "bytes 0-1036/1037"),
        ("bytes=10-19", 206, slice(10, 20), "bytes 10-19/1037"),
        ("bytes=1000-99999", 206, slice(1000, None), "bytes 1000-1036/1037"),
        ("bytes=-7", 206, slice(-7, None), "bytes 1030-1036/1037"),
        ("bytes=-99999", 206, slice(None), "bytes 0-1036/1037"),
        ("bytes=1037-", 416, slice(0, 0), "bytes */1037"),
        ("bytes=9-3", 416, slice(0, 0), "bytes */1037"),
        ("bytes=0-1,5-6", 200, slice(None), None),
        ("bytes=-", 200, slice(None), None),
        ("lines=0-1", 200, slice(None), None),
    ],
)
def test_a_clip_is_sent_whole_or_in_the_part_asked_for(
    asked: str, status: int, part: slice, place: str | None, serving: Serving, truth: Truth
) -> None:
    number, clip = 3, exported(truth)[3]
    got, body, headers = ask(serving, f"clip/{clip}", **({"Range": asked} if asked else {}))
    assert (got, headers["Content-Range"]) == (status, place)
    assert body == (MP4 + bytes([number]))[part]
    assert headers["Content-Type"] == "video/mp4"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        *("clip/", "clip/none", "clip/../../dataset.json", "../dataset.json", "dataset.json", "clip/%2e%2e%2fdataset.json"),
        *("/etc/passwd", "clip//etc/passwd", "exports/export@12345678/index.parquet", "?x=1", "clip/none?x"),
    ],
)  # fmt: skip
def test_a_path_leads_to_no_file(path: str, serving: Serving) -> None:
    status, body, _ = ask(serving, path)
    assert (status, body) == (404, b"no such clip\n")


def test_a_clip_that_no_export_holds_has_no_video(serving: Serving, truth: Truth) -> None:
    other = next(clip for clip in truth.ids if clip not in exported(truth))
    assert ask(serving, f"clip/{other}")[0] == 404


def test_who_lacks_the_token_or_means_another_host_gets_nothing(serving: Serving, truth: Truth) -> None:
    clip = exported(truth)[0]
    for path in ("/", "//", f"/clip/{clip}", f"/wrong/clip/{clip}", urlsplit(serving.address).path.rstrip("/")):
        assert ask(serving, path, token=False)[0] == 404, path
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", ""):
        status, body, _ = ask(serving, "", Host=host)
        assert (status, b"<html" in body) == (403, False), host
    port = urlsplit(serving.address).port
    assert ask(serving, "", Host=f"localhost:{port}")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(serving, "", method=method)[0] == 501


def test_the_page_follows_the_dataset(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 40)
    live = serve(str(truth.path))
    Thread(target=live.run, daemon=True).start()
    try:
        first, again_ = ask(live, "")[1], ask(live, "")[1]
        assert first == again_
        again.select_again(str(truth.path), "main", ["main.rules.motion.min=2"])
        assert b"motion &lt; 2" in ask(live, "")[1]
        assert b"motion &lt; 2" not in first
    finally:
        live.stop()


def test_a_withdrawn_clip_plays_no_more(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 12)
    export(truth, truth.ids[:8])
    live = serve(str(truth.path))
    Thread(target=live.run, daemon=True).start()
    try:
        path = f"clip/{truth.ids[1]}"
        assert ask(live, path)[1] == MP4 + bytes([1])
        take_down(str(truth.path), [schema.digest("source", 0)])
        assert ask(live, path)[:2] == (404, b"no such clip\n")
        assert ask(live, f"clip/{truth.ids[5]}")[1] == MP4 + bytes([5])  # which lies at another row since
    finally:
        live.stop()


def test_a_row_that_holds_another_clip_is_not_sent(tmp_path: Path) -> None:
    truth = build(tmp_path / "dataset", 12)
    export(truth, truth.ids[:3])
    index = tmp_path / "dataset" / "exports" / "export@12345678" / "index.parquet"
    rows = pq.read_table(index)
    pq.write_table(rows.set_column(rows.schema.get_field_index("row"), "row", pa.array([1, 0, 0], pa.int32())), index)
    live = serve(str(truth.path))
    Thread(target=live.run, daemon=True).start()
    try:
        status, body, _ = ask(live, f"clip/{truth.ids[0]}")
        assert status == 500
        assert b"holds another clip than its index says" in body
    finally:
        live.stop()


def test_what_cannot_be_served_is_one_line(truth: Truth, serving: Serving, dailies: Dailies) -> None:
    port = urlsplit(serving.address).port
    done = dailies("view", truth.path, "--port", port)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"dailies: --port={port}: cannot be listened on \(.+\); name another, or leave it out\n", done.stderr
    )
    with pytest.raises(UsageError, match="--selection=other: no such selection"):
        serve(str(truth.path), selection="other")


def test_an_interrupt_ends_it_in_one_line(truth: Truth) -> None:
    command = [sys.executable, "-m", "dailies.pipelines.cli.main", "view", str(truth.path)]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert re.fullmatch(r"view  http://127\.0\.0\.1:\d+/[\w-]{22}/\n", process.stdout.readline())
        assert process.stderr.readline() == "Ctrl-C ends it\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "dailies: stopped\n"
    assert process.returncode == 130
