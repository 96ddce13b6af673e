"""What others made opens what it may, and nothing else: playlists, links, pipes, and manifests that name what is not theirs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dailies as door
from dailies.curation import packages, video
from dailies.curation.errors import Unreadable, UsageError
from dailies.curation.policy import SourcePolicy
from dailies.curation.sources import list_sources
from dailies.curation.tables import DatasetTables, query, verify
from dailies.curation.video import store_of
from dailies.pipelines.again import export_again
from dailies.pipelines.cuts import find_cuts
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe
from dailies.pipelines.run import curate
from tests.conftest import Dailies
from tests.rendered_video import render
from tests.security.outside import pipe, ringing
from tests.security.web import serving

RECIPE = """
name: small
steps:
  - observe: {observers: [change, luma: {fps: 5, short_side: 90}], evidence: {fps: 5, short_side: 90}}
  - cut: {detector: content, min_seconds: 0.2, max_seconds: 4}
  - select: {rules: {luma: {min: 0}}}
  - export: {preset: ultrafast, crf: 30}
"""
ALL = SourcePolicy(local=True, private_hosts=True)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> CurationRecipe:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return load_recipe(str(path), ())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    render(path, count=12)
    return path


# ---- formats --------------------------------------------------------------------------------------------------------

VTT = "WEBVTT\n\n00:00.000 --> 00:01.000\nx\n"
LEADING = {
    "list.m3u8": ("hls", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nnext.ts\n#EXT-X-ENDLIST\n"),
    "list.mp4": ("concat", "ffconcat version 1.0\nfile next.mp4\n"),
    "list.ts": ("concat", "ffconcat version 1.0\nfile next.ts\n"),
    "session.mp4": ("sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
    "titles.mp4": ("vobsub", "# VobSub index file, v7\n"),
    "words.mkv": ("webvtt", VTT),
    "meta.mp4": ("ffmetadata", ";FFMETADATA1\ntitle=x\n"),
    "plain.txt": ("tty", "hello\n" * 100),
}


@pytest.mark.parametrize("name", LEADING)
def test_what_leads_to_other_files_is_no_video(tmp_path: Path, film: Path, name: str) -> None:
    """The same where the bytes come of a store, which has no names that tell."""
    format_name, text = LEADING[name]
    shutil.copy(film, tmp_path / "next.mp4")
    shutil.copy(film, tmp_path / "next.ts")
    (tmp_path / name).write_text(text)
    with pytest.raises(Unreadable) as caught:
        video.probe(str(tmp_path / name))
    assert str(caught.value).startswith(f"format={format_name}: may lead to other files")
    assert "allowed: mov, matroska, avi" in str(caught.value)
    system, _ = store_of("memory://lists/a")
    system.pipe(f"/lists/{name}", text.encode())
    with pytest.raises(Unreadable):
        video.probe(f"memory://lists/{name}")


def test_a_shard_s_playlist_is_not_given_to_decord(tmp_path: Path, film: Path) -> None:
    pytest.importorskip("decord", reason="needs decord")
    from dailies.training.data.reader import read

    shutil.copy(film, tmp_path / "next.ts")
    with serving(film.read_bytes()) as inner:
        for address in (f"{inner.url}/next.ts", f"file://{tmp_path}/next.ts"):
            text = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n"
            row = {"video": text.encode(), "width": 192, "height": 108, "fps": 25.0, "extraction": "encode"}
            for backend in ("decord", "pyav"):
                with pytest.raises(Unreadable):
                    read(row, 5, 2, (96, 54), backend)  # type: ignore[arg-type]
        assert inner.asked == []


# ---- links and what is no file --------------------------------------------------------------------------------------


def names(*arguments: object, **options: Any) -> list[str]:
    return [os.path.basename(row["uri"]) for row in list_sources(map(str, arguments), **options)]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Two videos, links to a folder elsewhere and to one of them, and two circles, which doubled a walk at each step."""
    for name in ("films/a.mp4", "films/sub/b.mp4", "elsewhere/c.mp4", "elsewhere/d.mp4", "alone/e.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    films = tmp_path / "films"
    for name, target in {
        "away": tmp_path / "elsewhere",
        "a-again.mp4": films / "a.mp4",
        "b-before": films / "sub",
        "e.mp4": tmp_path / "alone" / "e.mp4",
        "sub/round": films,
        "sub/around": films,
        "sub/up": tmp_path,
    }.items():
        (films / name).symlink_to(target)
    return films


@pytest.mark.parametrize("named", ["", "**/*.mp4", "**/[a-z]*.mp4", "**"])
def test_links_are_followed_once_and_told_of(linked: Path, named: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ringing(20):
        assert sorted(names(linked / named if named else linked)) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"]
    (line,) = [record.message for record in caplog.records if "links" in record.message]
    assert ": 3 of 5 videos lie behind links: " in line
    assert f"{linked}/away (2), {linked}/e.mp4 (1); --no-links leaves them out" in line


@pytest.mark.parametrize("named", ["", "**/*.mp4", "*.mp4", "*/*.mp4"])
def test_links_are_left_out_on_request(linked: Path, named: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the user names may be a link, or lie behind one."""
    (linked.parent / "here").symlink_to(linked)
    want = {"*.mp4": ["a.mp4"], "*/*.mp4": ["b.mp4"]}.get(named, ["a.mp4", "b.mp4"])
    for folder in (linked, linked.parent / "here"):
        assert names(folder / named if named else folder, follow_links=False) == want
    assert not caplog.records


def test_the_command_leaves_links_out(linked: Path, film: Path, dailies: Dailies, tmp_path: Path) -> None:
    for path in (linked / "a.mp4", linked / "sub/b.mp4"):
        shutil.copy(film, path)
    done = dailies("cuts", linked, "--no-links", "--json")
    assert done.returncode == 0
    assert "links" not in done.stderr
    assert sorted(Path(path).name for path in json.loads(done.stdout)) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("through", ["itself", "a link"])
def test_what_is_no_file_is_a_row_and_nobody_waits_for_it(
    tmp_path: Path, film: Path, recipe: CurationRecipe, through: str
) -> None:
    folder, kept = tmp_path / "films", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    where = folder if through == "itself" else kept
    pipe(where / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(where):  # the names of sockets are short
        listening.bind("socket.mp4")
    shutil.copy(film, folder / "fine.mp4")
    targets = {"zero.mp4": "/dev/zero", "gone.mp4": kept / "gone"}
    if through == "a link":
        targets |= {name: kept / name for name in ("pipe.mp4", "socket.mp4")}
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    with ringing(60):
        summary = curate([str(folder)], str(tmp_path / "out"), recipe, engine="local")
        curate([str(folder)], str(tmp_path / "out"), recipe, engine="local")
    assert summary.sources.ok == 1
    assert {Path(uri).name: message for uri, _, message in summary.sources.failures} == {
        "zero.mp4": "is a device, not a file",
        "gone.mp4": "No such file or directory",
        "pipe.mp4": "is a named pipe, not a file",
        "socket.mp4": "is a socket, not a file",
    }
    for name in ("pipe.mp4", "zero.mp4", "socket.mp4"):
        for read in (video.probe, video.content_id):
            with ringing(10), pytest.raises(Unreadable, match="not a file"):
                read(str(folder / name))


def test_a_pipe_in_place_of_a_table_of_videos_is_no_cell(tmp_path: Path) -> None:
    pipe(tmp_path / "cells.parquet")
    with ringing(10), pytest.raises(Unreadable, match="named pipe"):
        video.content_id(video.cell_url(str(tmp_path / "cells.parquet"), "video", 0))


# ---- manifests ------------------------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path, film: Path) -> Path:
    """A folder that somebody gave, beside a film that is not theirs; links in it lead in and out."""
    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "mine.mp4", folder / "sub/mine.mp4", tmp_path / "private.mp4"):
        shutil.copy(film, path)
    (folder / "in.mp4").symlink_to("sub/mine.mp4")
    (folder / "out.mp4").symlink_to("../private.mp4")
    (folder / "up").symlink_to("..")
    (tmp_path / "given-too").mkdir()
    shutil.copy(film, tmp_path / "given-too/mine.mp4")
    return folder


def listed(folder: Path, *cells: str, **options: Any) -> list[dict[str, Any]]:
    pq.write_table(pa.table({"path": list(cells)}), folder / "list.parquet")
    return list(list_sources([str(folder / "list.parquet")], **options))


OUTSIDE = [
    *("{}/private.mp4", "../private.mp4", "sub/../../private.mp4", "out.mp4", "up/private.mp4", "./up/given/../private.mp4"),
    *("~/private.mp4", "~root/private.mp4", "/etc/hostname", "//etc/hostname", "/proc/self/environ", "../given-too/mine.mp4"),
    *("file://{}/private.mp4", "FILE://{}/private.mp4", "File:///etc/hostname", "file://localhost/etc/hostname"),
    *("parquet://{}/private.parquet#row=0&column=video", "PARQUET:///etc/x.parquet#row=0&column=video", "file://"),
]  # fmt: skip
BOTH = [
    *("simplecache::file:///etc/hostname", "zip://a.mp4::file:///etc/x.zip", "zip://a.mp4::/etc/x.zip", "local:///etc/hostname"),
    *("memory://x/a.mp4", "data:video/mp4;base64,//x://", "ftp://127.0.0.1/a.mp4", "sftp://host/a.mp4", "ssh://host/a.mp4"),
    *("smb://host/share/a.mp4", "github://org:repo@main/a.mp4", "git://x/a.mp4", "hdfs://host/a.mp4", "dir://x::file:///etc"),
    *("s3://bucket/a::file:///etc/hostname", "http://good.example/a::file:///etc/hostname", "c://etc/hostname"),
    *("reference://::file:///etc/x.json", "blockcache::s3://b/a.mp4", "tar://a::http://127.0.0.1/x.tar", "jlab://h/a"),
]  # fmt: skip
NEVER = [
    "a\0.mp4",
    "/etc/hostname\0.mp4",
    "http://good.example/\r\nHost: x",
    "https://x/" + "a" * 100_000,
    "a/" * 50_000,
]
FINE = [
    *("mine.mp4", "sub/mine.mp4", "in.mp4", "{}/given/mine.mp4", "sub/../mine.mp4", "file://{}/given/mine.mp4"),
    *("http://films.example/a.mp4", "HTTPS://films.example/a.mp4?x=1", "s3://bucket/a.mp4", "gs://bucket/a.mp4"),
    *("abfs://container@account.dfs.core.windows.net/a.mp4", "http://[2606:4700:4700::1111]/a.mp4"),
    *("%2e%2e/private.mp4", "..%2fprivate.mp4", "‥/private.mp4", "..\\private.mp4", "file:/etc/hostname", "a\nb.mp4"),
]


@pytest.mark.parametrize("cell", OUTSIDE)
def test_a_manifest_names_no_file_outside_of_its_folder(given: Path, cell: str) -> None:
    text = cell.format(given.parent)
    (row,) = listed(given, text)
    assert row["refused"]
    assert row["refused"].endswith("lies outside of the manifest's folder; --allow-local lets it be opened")
    assert "\n" not in row["refused"]
    (row,) = listed(given, text, policy=SourcePolicy(private_hosts=True))
    assert row["refused"]
    (row,) = listed(given, text, policy=SourcePolicy(local=True))
    assert row["refused"] is None


@pytest.mark.parametrize("cell", BOTH)
def test_a_manifest_names_no_other_kind_of_address(given: Path, cell: str) -> None:
    for policy in (SourcePolicy(), SourcePolicy(local=True), SourcePolicy(private_hosts=True)):
        (row,) = listed(given, cell, policy=policy)
        assert row["refused"]
        assert "--allow-local and --allow-private-hosts, both" in row["refused"] or "folder" in row["refused"]
    (row,) = listed(given, cell, policy=ALL)
    assert row["refused"] is None


def test_a_name_that_no_file_has_is_a_row(given: Path, tmp_path: Path, recipe: CurationRecipe) -> None:
    rows = listed(given, *NEVER, "mine.mp4", policy=ALL)
    assert [bool(row["refused"]) for row in rows] == [True] * len(NEVER) + [False]
    assert all(len(row["refused"]) < 250 and "\n" not in row["refused"] for row in rows[:-1])
    summary = curate([str(given / "list.parquet")], str(tmp_path / "out"), recipe, engine="local")
    assert summary.sources.ok == 1
    assert [kind for _, kind, _ in summary.sources.failures] == ["refused"] * len(NEVER)


def test_what_utf8_cannot_hold_is_a_row(given: Path) -> None:
    (given / "list.jsonl").write_text('{"path": "\\ud800.mp4"}\n{"path": "http://x/\\udcff"}\n')
    rows = list(list_sources([str(given / "list.jsonl")]))
    assert [row["uri"].encode() for row in rows]


@pytest.mark.parametrize("cell", FINE)
def test_a_manifest_names_its_own_files_and_the_open_internet(
    given: Path, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dots in other spellings are but letters of a name."""
    monkeypatch.setattr(packages, "installed", lambda name: True)  # clients of stores, which are asked for elsewhere
    (row,) = listed(given, cell.format(given.parent))
    assert row["refused"] is None
    assert "://" in row["uri"] or row["uri"].startswith(f"{given}/")


def test_which_column_holds_the_videos_is_told_without_looking_elsewhere(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    look = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(str(path)) or look(path))
    pq.write_table(pa.table({"url": ["/net/host/x.mp4"], "path": ["../private.mp4"]}), given / "list.parquet")
    list(list_sources([str(given / "list.parquet")]))
    assert asked == []


def test_what_the_user_names_too_is_trusted(given: Path) -> None:
    pq.write_table(pa.table({"path": ["../private.mp4"]}), given / "list.parquet")
    (row,) = list_sources([str(given / "list.parquet"), str(given.parent / "private.mp4")])
    assert row["refused"] is None


def test_a_manifest_of_others_from_end_to_end(
    given: Path, film: Path, tmp_path: Path, recipe: CurationRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with serving(film.read_bytes()) as inner:
        cells = ["mine.mp4", "../private.mp4", "out.mp4", f"{inner.url}/secret.mp4", "zip://a::/etc/x"]
        pq.write_table(pa.table({"path": cells, "text": list("abcde")}), given / "list.parquet")
        named = [str(given / "list.parquet")]
        for _ in range(2):
            summary = curate(named, str(out), recipe, engine="local")
            assert summary.sources.ok == 1
            failures = {uri.rpartition("/")[2]: (kind, message) for uri, kind, message in summary.sources.failures}
            assert {kind for kind, _ in failures.values()} == {"refused"}
            assert sorted(failures) == ["out.mp4", "private.mp4", "secret.mp4", "x"]
            assert failures["private.mp4"][1] == (
                "private.mp4: lies outside of the manifest's folder; --allow-local lets it be opened"
            )
            assert failures["secret.mp4"][1].startswith("127.0.0.1 is no public address; --allow-private-hosts")
        assert inner.asked == []
        stored = query(DatasetTables.open(str(out)), "select bytes from observations where failure.kind = 'refused'")
        assert set(stored["bytes"].to_pylist()) == {None}

        summary = curate(named, str(out), recipe, engine="local", policy=SourcePolicy(local=True))
        assert summary.sources.ok == 3
        assert inner.asked == []
        summary = curate(named, str(out), recipe, engine="local", policy=SourcePolicy(private_hosts=True))
        assert summary.sources.ok == 4, "what was read before stays"
        assert [kind for _, kind, _ in summary.sources.failures] == ["refused"]
        assert inner.asked
    assert verify(DatasetTables.open(str(out))) == []


def test_where_the_user_s_own_url_leads_is_said_before_work(given: Path) -> None:
    with serving(b"x") as inner, serving(b"x", "127.0.0.2") as sending:
        sending.leads = {"/a.mp4": f"{inner.url}/secret.mp4", "/films/": f"{inner.url}/"}
        for name in ("a.mp4", "films/*.mp4"):
            with pytest.raises(
                UsageError, match=rf"^{sending.url}/.*: 127.*public.*; --allow-private-hosts lets it be"
            ):
                list(list_sources([f"{sending.url}/{name}"]))
        assert inner.asked == []


def test_a_dataset_of_others_is_exported_without_asking_this_machine(
    film: Path, tmp_path: Path, recipe: CurationRecipe
) -> None:
    out, other = str(tmp_path / "out"), tmp_path / "other.mp4"
    render(other, count=14)
    with serving(film.read_bytes()) as inner:
        summary = curate([f"{inner.url}/film.mp4", str(other)], out, recipe, engine="local")
        assert summary.sources.ok == 2, "the user named it"
        inner.asked.clear()
        report = export_again(out, "export", ["export.crf=31"], engine="local")
        assert (sum(report.splits.values()), report.failed) == (1, 1)
        rows = pq.read_table(f"{report.path}/index.parquet", columns=["failure"])["failure"].to_pylist()
        (failure,) = [row for row in rows if row]
        assert (failure["kind"], failure["message"].split(";")[0]) == ("refused", "127.0.0.1 is no public address")
        assert inner.asked == []
        allowed = SourcePolicy(private_hosts=True)
        report = export_again(out, "export", ["export.crf=31"], engine="local", policy=allowed)
        assert (sum(report.splits.values()), report.failed) == (2, 0)


def test_the_commands_and_the_python_door_take_the_flags(
    given: Path, film: Path, tmp_path: Path, recipe: CurationRecipe, dailies: Dailies
) -> None:
    pq.write_table(pa.table({"path": ["../private.mp4"]}), given / "list.parquet")
    done = dailies("cuts", given / "list.parquet", "--json")
    assert (done.returncode, "--allow-local lets it be opened" in done.stderr) == (1, True)
    assert dailies("cuts", given / "list.parquet", "--allow-local", "--json").returncode == 0
    assert not find_cuts([str(given / "list.parquet")], load_recipe("default")).cuts
    how: Any = {"recipe": recipe, "engine": "local", "progress": door.silent}
    assert door.curate(given / "list.parquet", tmp_path / "one", **how).sources.ok == 0
    assert door.curate(given / "list.parquet", tmp_path / "one", allow_local=True, **how).sources.ok == 1


@pytest.mark.parametrize("command", ["curate", "cuts", "export"])
def test_help_of_the_flags(dailies: Dailies, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = dailies(command, "--help").stdout
    assert "--allow-private-hosts" in shown
    assert max(map(len, shown.splitlines())) <= 80
