"""Passwords and signatures of URLs, and where files lie on a disk: no file that is written and nothing that is shown has
them. Sources lie behind a server of the test's own, which wants both."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies import Dataset
from dailies.curation import addresses, schema, world
from dailies.curation.addresses import public, scrub, scrub_data, scrub_json
from dailies.curation.errors import SourceError, Unreadable, UsageError
from dailies.curation.export import ExportManifest
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.curation.sources import list_sources
from dailies.curation.tables import DatasetTables, clean_tables, query
from dailies.pipelines.again import export_again
from dailies.pipelines.maintenance import verify_dataset
from dailies.pipelines.places import place_sources
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.reports import Summary
from dailies.pipelines.run import curate
from tests.conftest import Dailies
from tests.dataset_builder import fill
from tests.test_curate import FAST

PASSWORD, SECRET = "pw-Zq81xTn4", "sig-Kd93vLm7"
FOUND = (PASSWORD.encode(), SECRET.encode())


@dataclass
class Server:
    """``files`` by path, or by path and ``?id=``; ``signature``: the one that it wants now."""

    files: dict[str, bytes] = field(default_factory=dict)
    signature: str = SECRET
    denied: set[str] = field(default_factory=set)  # files that are there, and may not be read
    port: int = 0

    def url(self, path: str, *, signature: str | None = None, password: str = PASSWORD, host: str = "127.0.0.1") -> str:
        joint = "&" if "?" in path else "?"
        return f"http://user:{password}@{host}:{self.port}/{path}{joint}X-Amz-Signature={signature or self.signature}"


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    wanted = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            parts = urlsplit(self.path)
            asked = parse_qs(parts.query)
            name = parts.path.strip("/") + (f"?id={asked['id'][0]}" if "id" in asked else "")
            allowed = self.headers.get("Authorization") == wanted and asked.get("X-Amz-Signature") == [server.signature]
            if not allowed or name not in server.files:
                self.send_response(404 if allowed else 403)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if name in server.denied and "Range" in self.headers:
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body, start, status = server.files[name], 0, 200
            if span := self.headers.get("Range"):
                first, _, last = span.removeprefix("bytes=").partition("-")
                start, status = int(first), 206
                size, body = len(body), body[start : int(last) + 1 if last else None]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield server
        http.shutdown()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    for number in (6, 7, 8):
        world.encode(world.write_script(number, shots=1, text=0, still=0), folder / f"{number}.mp4")
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(films: dict[str, bytes]) -> Iterator[Server]:
    with serving(Server({"a.mp4": films["6"], "watch?id=1": films["7"], "watch?id=2": films["8"]})) as running:
        running.files["broken.mp4"] = b"not a video" * 99
        yield running


def curated(out: Path, *sources: str, sets: tuple[str, ...] = (), **how: Any) -> Summary:
    return curate(list(sources), str(out), load_recipe(FAST[1], [*FAST[3::2], *sets]), engine="local", **how)


def everything_in(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each file's bytes, and of Parquet what it holds too, which is compressed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()
            if path.suffix == ".parquet":
                for group in range(pq.ParquetFile(path).num_row_groups):
                    yield path, repr(pq.ParquetFile(path).read_row_group(group).to_pydict()).encode()


def leaks(folder: Path, *words: bytes) -> list[str]:
    return sorted({str(path) for path, data in everything_in(folder) if any(word in data for word in words)})


# ---- from end to end ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    output: str
    titles: bytes


def watched(*arguments: str, cwd: Path) -> Watched:
    """Run a command; with what it printed come the titles of all its processes while they ran.

    Of the first one, which begins with what its caller typed, the title as it was last counts.
    """
    mark, titles, own = uuid.uuid4().hex, set[bytes](), b""
    process = subprocess.Popen(
        [sys.executable, "-c", "from dailies.pipelines.cli.main import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        text=True,
        env=os.environ | {"MARK_OF_TEST": mark},
    )
    done = threading.Event()

    def watch() -> None:
        nonlocal own
        while not done.wait(0.05):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with suppress(OSError):
                    if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                        line = Path(f"/proc/{pid}/cmdline").read_bytes()
                        if int(pid) == process.pid:
                            own = line or own
                        else:
                            titles.add(line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate(timeout=240)
    done.set()
    watcher.join()
    return Watched(output=output, titles=b"\n".join([own, *titles]))


@pytest.fixture(scope="module")
def journey(films: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Watched]]]:
    """A dataset of good and bad sources with its exports, and what was shown meanwhile."""
    folder = tmp_path_factory.mktemp("home-of-user")
    local = folder / "local"
    local.mkdir()
    (local / "l.mp4").write_bytes(films["8"])
    page = f"https://user:{PASSWORD}@pages.example/w?v=abc&sig={SECRET}&t=5"
    columns = {"page": page, "token": SECRET, "headers": f"Authorization: Bearer {SECRET}0123456789", "year": "1999"}
    rows = [{"path": str(local / "l.mp4"), **columns}]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"a.mp4": films["6"], "b.mp4": b"not a video" * 99, "denied.mp4": b"x", "gone.mp4": films["7"][:99]}
    with serving(Server(files, denied={"denied.mp4"})) as server:
        urls = [server.url(name) for name in files]
        given = ["curate", *urls, str(folder / "list.jsonl"), "-o", str(folder / "dataset"), *FAST]
        shown = [watched(*given, "--engine", "local", cwd=folder)]
        again = ["export", str(folder / "dataset"), "--engine", "local"]
        shown.append(watched(*again, "--sources", urls[0], "--private-sources", "--set", "export.crf=30", cwd=folder))
        shown.append(
            watched("sql", str(folder / "dataset"), "select uri, manifest, failure from observations", cwd=folder)
        )
        refused = f"http://user:{PASSWORD}@127.0.0.1:1/c.mp4?token={SECRET}"
        shown.append(watched("curate", refused, "-o", str(folder / "none"), "--json", cwd=folder))
        yield folder, shown


def test_no_file_and_no_line_shows_a_password_or_a_signature(
    journey: tuple[Path, list[Watched]], dailies: Dailies
) -> None:
    folder, shown = journey
    for statement in ("select uri, manifest, failure from observations", "select command from runs"):
        for form in ("--csv", "--json"):
            shown.append(Watched(output=dailies("sql", str(folder / "dataset"), statement, form).stdout, titles=b""))
    (folder / "list.jsonl").unlink()  # which is the user's own
    assert [step.output for step in shown if PASSWORD in step.output or SECRET in step.output] == []
    assert leaks(folder, *FOUND) == []
    assert b"dailies.pipelines.isolate" in shown[0].titles
    assert FOUND[0] not in shown[0].titles
    assert FOUND[1] not in shown[0].titles
    dataset = Dataset(folder / "dataset")
    failures = dataset.sql("select uri, failure.message as m from observations where status = 'failed' order by uri")
    assert [Path(uri).name for uri in failures["uri"].to_pylist()] == ["b.mp4", "denied.mp4", "gone.mp4"]
    assert "http" in " ".join(failures["m"].to_pylist()), "reasons still say which address"
    assert dataset.sql("select count(*) as n from clips where status = 'ok'")["n"][0].as_py() >= 2
    (told,) = dataset.sql("select manifest from observations where manifest is not null")["manifest"].to_pylist()
    assert json.loads(told) == {
        "page": "https://pages.example/w?v=abc&t=5",
        "token": "***",
        "headers": "Authorization: ***",
        "year": "1999",
    }


def test_exports_name_data_by_name_and_not_by_place(journey: tuple[Path, list[Watched]]) -> None:
    folder, _ = journey
    plain, private = (Path(path) for path in Dataset(folder / "dataset").exports)
    assert leaks(folder / "dataset" / "exports", os.fsencode(folder)) == []
    uris = set(pq.read_table(plain / "index.parquet")["uri"].to_pylist())
    assert {Path(uri).name for uri in uris} == {"a.mp4", "l.mp4"}
    assert "l.mp4" in uris
    index = pq.read_table(private / "index.parquet")
    assert index["uri"].null_count == len(index) > 0
    assert index["source_id"].null_count == 0
    assert not any("pages.example" in (text or "") for text in index["manifest"].to_pylist())
    assert leaks(private, b"127.0.0.1", b"l.mp4", b"a.mp4") == []
    assert ExportManifest.from_json((private / "export.json").read_bytes()).private_sources
    assert not ExportManifest.from_json((plain / "export.json").read_bytes()).private_sources
    assert verify_dataset(str(folder / "dataset"), deep=True) == []


def test_a_published_model_names_no_place_of_its_maker(journey: tuple[Path, list[Watched]], tmp_path: Path) -> None:
    for package in ("torch", "diffusers", "transformers"):
        pytest.importorskip(package)
    from dailies.zoo import publish
    from tests.tiny_run import make_run

    run = make_run(tmp_path)
    folder, _ = journey
    private = tmp_path / "zoo"
    for number, export in enumerate(Dataset(folder / "dataset").exports):
        facts = json.loads((run / "run.json").read_text())
        clips = pq.read_table(Path(export) / "index.parquet", columns=["clip_id"])["clip_id"].to_pylist()
        facts |= {"data": export, "export": json.loads((Path(export) / "export.json").read_text())}
        for phase in facts["phases"]:
            phase["first_clip_ids"] = clips
        (run / "run.json").write_text(json.dumps(facts))
        publish(run, name=f"m{number}", to=private)
    assert leaks(private, *FOUND, os.fsencode(tmp_path), os.fsencode(folder)) == []
    card = (private / "m0" / "README.md").read_text()
    assert "`l.mp4`" in card
    assert Path(Dataset(folder / "dataset").exports[0]).name in card
    assert "a.mp4" not in (private / "m1" / "README.md").read_text()


def test_clips_that_stay_in_private_sources_could_not_be_read(tmp_path: Path) -> None:
    recipe = load_recipe(FAST[1], ["export.mode=none"])
    with pytest.raises(UsageError, match=r"^--private-sources: export.mode=none: "):
        curate(["nowhere.mp4"], str(tmp_path / "d"), recipe, engine="local", private_sources=True)
    assert not (tmp_path / "d").exists()


# ---- what a URL leads to --------------------------------------------------------------------------------------------


def test_a_query_may_lead_to_another_video_and_a_signature_does_not(
    server: Server, films: dict[str, bytes], tmp_path: Path
) -> None:
    out, first, second = tmp_path / "dataset", server.url("watch?id=1"), server.url("watch?id=2")
    assert curated(out, first, second).sources.ok == 2
    rows = query(DatasetTables.open(out), "select source_id, uri, content_id from observations").to_pylist()
    assert {row["uri"] for row in rows} == {f"http://127.0.0.1:{server.port}/watch"}
    assert len({row["source_id"] for row in rows}) == len({row["content_id"] for row in rows}) == 2
    ids = {row["content_id"]: row["source_id"] for row in rows}
    server.signature = "sig-other-91827"
    dataset = DatasetTables.open(out)
    again = [server.url("watch?id=2"), server.url("watch?id=1"), f"{server.url('watch?id=1')}&again=1"]
    with opening_by(SourcePolicy(private_hosts=True)):
        placed = place_sources(dataset, list(list_sources(again)))
    assert {row["source_id"] for row in placed.rows} == set(ids.values())
    assert [row["address"] for row in placed.rows] == again[:2]
    server.files["watch?id=3"] = films["6"]
    with opening_by(SourcePolicy(private_hosts=True)):
        (other,) = place_sources(dataset, list(list_sources([server.url("watch?id=3")]))).rows
    assert other["source_id"] not in ids.values(), "another content is never taken for the source of that place"


def test_what_a_signature_ran_out_for_is_extracted_with_the_next(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    still = "main.rules.motion.min=0"
    summary = curated(out, server.url("a.mp4"), server.url("watch?id=1"), sets=(still,))
    assert summary.sources.ok == 2
    failed = export_again(str(out), "export", ["export.crf=31"], engine="local")
    assert failed.path is None
    assert failed.failed > 0
    clip = Dataset(out).clips().filter(pa.compute.field("status") == "ok")["clip_id"][0].as_py()
    with pytest.raises(SourceError, match="is not stored: give the sources again"):
        Dataset(out).frames(clip)
    server.signature = "sig-new-5551212"
    urls = [server.url("a.mp4"), server.url("watch?id=1")]
    frames = [_frames(out, clip, url) for url in urls]
    assert frames.count(None) == 1, "another content is not taken for the clip's"
    half = export_again(str(out), "export", ["export.crf=31"], engine="local", sources=urls[:1])
    assert half.failed > 0
    assert half.path is not None
    reasons = pq.read_table(Path(half.path) / "index.parquet", columns=["failure"])["failure"].to_pylist()
    assert any(reason and "give the sources again" in reason["message"] for reason in reasons)
    (whole,) = curated(out, *urls, sets=(still, "export.crf=31")).exports
    assert whole.failed == 0
    assert sum(whole.splits.values()) == sum(half.splits.values()) + half.failed
    assert leaks(out, *FOUND, b"sig-new-5551212") == []


def _frames(out: Path, clip: str, address: str) -> int | None:
    try:
        return len(Dataset(out).frames(clip, address=address).pts)
    except SourceError:
        return None


def test_a_source_whose_signature_had_run_out_is_tried_again_with_another(server: Server, tmp_path: Path) -> None:
    server.denied.add("a.mp4")
    assert curated(tmp_path / "d", server.url("a.mp4")).sources.ok == 0
    server.signature = "sig-new-5551212"
    server.denied.clear()
    assert curated(tmp_path / "d", server.url("a.mp4")).sources.ok == 1
    rows = query(DatasetTables.open(tmp_path / "d"), "select uri from observations")["uri"].to_pylist()
    assert rows == [f"http://127.0.0.1:{server.port}/a.mp4"]


# ---- an older dailies -----------------------------------------------------------------------------------------------


def test_tables_of_an_older_dailies_are_named_and_cleaned_by_the_next_run(server: Server, tmp_path: Path) -> None:
    out, url = tmp_path / "dataset", server.url("a.mp4")
    curated(out, url)
    dataset = DatasetTables.open(out)
    for name in dataset.tables():
        table = dataset.table(name)
        if "uri" in table.schema.names:  # as they were written once
            rows = table.read().to_pylist()
            table.replace(pa.Table.from_pylist([row | {"uri": url} for row in rows], schema=table.schema))
    (export,) = dataset.exports()
    index = out / "exports" / export / "index.parquet"
    rows = pq.read_table(index)
    pq.write_table(rows.set_column(rows.schema.get_field_index("uri"), "uri", pa.array([url] * len(rows))), index)
    before = {row["source_id"] for row in query(dataset, "select source_id from observations").to_pylist()}
    problems = {problem.table.partition("@")[0] for problem in verify_dataset(str(out), deep=False)}
    assert problems == {"observations", "clips/boundary", "exports/export"}
    summary = curated(out, server.url("a.mp4"))
    assert {row["source_id"] for row in query(dataset, "select source_id from observations").to_pylist()} == before
    (made,) = summary.exports
    assert made.path is not None
    assert Path(made.path).name == f"{export}.2"
    assert leaks(Path(made.path), *FOUND) == []
    problems = {problem.table for problem in verify_dataset(str(out), deep=False)}
    assert problems == {f"exports/{export}"}, "which the line says to delete"
    for table in (path for path in out.iterdir() if path.name != "exports"):
        assert leaks(table, *FOUND) == []


def test_cleaning_leaves_what_is_clean_as_it_is(tmp_path: Path) -> None:
    dataset = DatasetTables.create(tmp_path / "dataset")
    fill(dataset, ["a", "b"])
    before = {name: dataset.table(name).version() for name in dataset.tables()}
    clean_tables(dataset)
    assert {name: dataset.table(name).version() for name in dataset.tables()} == before


# ---- the scrubber ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/videos/what?.mp4#1", "/videos/what?.mp4#1"),
        ("parquet:///v/a.parquet#row=3&column=video", "parquet:///v/a.parquet#row=3&column=video"),
        ("HTTPS://u:p@h:8/a.mp4?sig=1#t=1", "HTTPS://h:8/a.mp4"),
        ("http://u:p@[::1]:80/a.mp4?x", "http://[::1]:80/a.mp4"),
        ("http://u:p/a?s#s@h/a.mp4", "http://h/a.mp4"),
        ("http://u@x:p@h/a.mp4", "http://h/a.mp4"),
        ("http://h/@me/a.mp4", "http://h/@me/a.mp4"),
        ("s3://key:secret@bucket/take#1.mp4", "s3://bucket/take#1.mp4"),
        ("gs://bucket/a.mp4?X-Goog-Signature=1", "gs://bucket/a.mp4"),
        (
            "abfs://films@account.dfs.core.windows.net/a.mp4?sv=1&sig=2",
            "abfs://films@account.dfs.core.windows.net/a.mp4",
        ),
        ("simplecache::http://u:p@h/a.mp4?x=1", "simplecache::http://h/a.mp4"),
    ],
)
def test_the_public_form_of_an_address(address: str, shown: str) -> None:
    assert public(address) == shown == public(shown)


@pytest.mark.parametrize(
    "text",
    [
        f"GET http://u:{SECRET}@h/a?b=1, failed",
        f"url='https://h/a.mp4?X-Amz-Credential=AK%2F1&X-Amz-Signature={SECRET}'",
        f"Authorization: Bearer {SECRET}",
        f"{{'Authorization': 'Basic {SECRET}=='}}",
        f'{{"password": "{SECRET}", "a": 1}}',
        f"SharedAccessSignature sv=2020&sig={SECRET}&se=1",
        f"token={SECRET}; api_key={SECRET} aws_secret_access_key = {SECRET}",
        f"x-amz-security-token: {SECRET}",
        f"Bearer {SECRET}",
        f"--password='{SECRET} {SECRET}'",
    ],
)
def test_secrets_are_taken_out_of_any_text(text: str) -> None:
    assert SECRET not in scrub(text)
    assert scrub(scrub(text)) == scrub(text)
    assert SECRET not in str(UsageError(text))
    assert SECRET not in str(pickle.loads(pickle.dumps(Unreadable(text))))
    assert SECRET not in schema.failed("observe", "unreadable", text)["failure"]["message"]


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=5: must be at most 77",
        "use --set STEP.KEY=VALUE",
        "http://127.0.0.1:8265/a.mp4: HTTP status 403",
        "/videos/a b.mp4: no such file",
        "a basic red/blue shirt, the bearer of news",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub(text) == text
    assert scrub_data({"caption": text}) == {"caption": text}


def test_columns_that_are_called_like_a_secret_lose_their_values_and_names_of_samples_stay() -> None:
    plain = {"key": "000123", "video_key": "b", "tokens": "a b", "sign": "hello", "n_token": 5, "token": None}
    secret = {"token": "a1", "api_key": "b", "AWS_SECRET_ACCESS_KEY": "c", "db-password": "d", "Cookie": "e"}
    assert scrub_data({"row": [plain | secret]}) == {"row": [plain | dict.fromkeys(secret, "***")]}


def test_secrets_of_the_environment_are_known_by_their_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plainword")
    monkeypatch.setenv("MY_DB_PASSWORD", "another-word")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert scrub("a plainword and another-word, false") == "a *** and ***, false"
    assert scrub_json('{"a": "plainword"}') == '{"a": "***"}'


def test_logs_of_any_library_pass_the_scrubber_tracebacks_too(capsys: pytest.CaptureFixture[str]) -> None:
    stream = logging.lastResort
    assert isinstance(stream, logging.Handler)
    try:
        raise ValueError(f"http://u:{PASSWORD}@h/a?sig={SECRET}")
    except ValueError:
        record = logging.getLogger("botocore.auth").makeRecord(
            *("botocore.auth", logging.WARNING, __file__, 1, "%s", (f"password={PASSWORD}",), sys.exc_info())
        )
    stream.handle(record)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert PASSWORD not in shown
    assert SECRET not in shown


def test_a_process_hides_its_own_arguments(tmp_path: Path) -> None:
    code = (
        "import sys; from dailies.curation.addresses import hide_arguments; hide_arguments(); "
        "print(sys.argv[1]); print(open('/proc/self/cmdline').read())"
    )
    url = f"http://u:{PASSWORD}@h/a.mp4?sig={SECRET}"
    done = subprocess.run([sys.executable, "-c", code, url, "last"], capture_output=True, text=True, check=True)
    argument, title = done.stdout.splitlines()
    assert argument == url
    assert PASSWORD not in title
    assert SECRET not in title
    assert title.rstrip("\0").endswith("last")
    assert addresses.HIDDEN in title


@pytest.mark.timeout(60)  # by the square of its length, each would take many minutes
@pytest.mark.parametrize(
    "unit",
    ["x", "a-", "x-", "a.", "_", "::", "::a", "key ", "key=", "token='", "token_", "bearer ", "a://b?", "AKIA", "set-"],
)
@pytest.mark.parametrize("start", ["", "http://a/?", "http://", "a://:"])
def test_no_text_of_a_stranger_holds_the_scrubber_up(start: str, unit: str) -> None:
    text = f"{start}{unit * 100_000} https://me:{PASSWORD}@h/a.mp4?sig={SECRET} token={SECRET}"
    for shown in (addresses.scrub(text), str(addresses.scrub_data(text))):
        assert PASSWORD not in shown
        assert SECRET not in shown
    assert PASSWORD not in addresses.public(f"http://me:{PASSWORD}@h/{unit * 100_000}/@")


def test_a_url_behind_a_long_word_is_seen() -> None:
    assert PASSWORD not in addresses.scrub("x" * 100 + f"https://me:{PASSWORD}@h/a.mp4")
