"""Datasets captioned by a server: nothing lost, nothing twice, whatever it does and whenever the run is killed."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dailies.curation import world
from dailies.curation.captioners import EndpointCaptioner
from dailies.curation.tables import DatasetTables, Table, query
from dailies.pipelines.again import dedup_again, export_again, select_again
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.run import curate
from dailies.pipelines.units import bundles
from tests.chat_server import (
    MODEL,
    Asked,
    Behaviour,
    ChatServer,
    HttpAnswer,
    busy,
    caption_of,
    completion,
    cut,
    error,
    in_turn,
    raw,
    slow,
)
from tests.conftest import Dailies
from tests.test_endpoint import KEY
from tests.test_kill import FORKS, IMPORTS

CLIPS: list[dict[str, Any]] = [
    {"observe": {"observers": ["boundary"], "evidence": {"fps": 4, "short_side": 90}}},
    {"cut": {"detector": "boundary", "min_seconds": 0.4, "max_seconds": 0.8}},
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dailies.curation.chat.server.FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    world.render_world(folder, seed=3, videos=3, shots=(2, 3), shot_frames=(40, 60), still=0.0)
    return folder


@pytest.fixture(scope="module")
def old(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that was made before there was a captioner."""
    out = tmp_path_factory.mktemp("old") / "dataset"
    curate([str(footage)], str(out), recipe([]), engine="local")
    return out


@pytest.fixture
def dataset(old: Path, tmp_path: Path) -> Path:
    copytree(old, tmp_path / "dataset")
    return tmp_path / "dataset"


def recipe(steps: list[dict[str, Any]]) -> CurationRecipe:
    return parse_recipe({"name": "captioned", "steps": [*CLIPS, *steps]})


def by_endpoint(server: ChatServer | str, **how: Any) -> dict[str, Any]:
    url = server if isinstance(server, str) else server.url
    return {"caption": {"captioner": {"endpoint": {"url": url, "model": MODEL, **how}}}}


def captioned(
    footage: Path, dataset: Path, server: ChatServer | str, *, retry_failed: bool = False, **how: Any
) -> None:
    step = by_endpoint(server, **how)
    curate([str(footage)], str(dataset), recipe([step]), engine="local", retry_failed=retry_failed)


def captions(dataset: Path) -> list[dict[str, Any]]:
    """All rows of the one table of captions; none where there is no table yet."""
    opened = DatasetTables.open(dataset)
    names = [name for name in opened.tables() if name.startswith("captions/")]
    assert len(names) <= 1, "the same captions by another address are another table"
    return [row for name in names for row in opened.table(name).read().to_pylist()]


def clips(dataset: Path) -> list[str]:
    opened = DatasetTables.open(dataset)
    (name,) = [name for name in opened.tables() if name.startswith("clips/")]
    return sorted(opened.table(name).read(["clip_id"], equals={"status": "ok"})["clip_id"].to_pylist())


def files(dataset: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in dataset.rglob("*.parquet")}


def test_an_old_dataset_gets_captions_without_a_decode(footage: Path, dataset: Path) -> None:
    before = files(dataset)
    with ChatServer() as server:
        captioned(footage, dataset, server)
        rows = captions(dataset)
        assert sorted(row["clip_id"] for row in rows) == clips(dataset)
        assert {row["text"] for row in rows} == {f"a caption of {key}" for key in server.times}
        assert set(server.times.values()) == {1}
        captioned(footage, dataset, server, concurrency=1, tries=1, timeout_seconds=9)
        assert set(server.times.values()) == {1}, "and none is asked for twice"
    after = files(dataset)
    assert before.items() <= after.items()
    assert {path.relative_to(dataset).parts[0] for path in after.keys() - before.keys()} == {"captions", "runs"}
    row = rows[0]
    assert (row["status"], row["tokens"], row["prompt_tokens"], row["model"]) == ("ok", 7, 100, MODEL)
    assert len(row["prompt_hash"]) == 16
    shown = query(DatasetTables.open(dataset), "select status_endpoint from captions_endpoint")
    assert pc.all(pc.equal(shown["status_endpoint"], "ok")).as_py()


def test_a_table_is_named_by_what_gives_captions_their_meaning() -> None:
    def table(**how: Any) -> str:
        return recipe([by_endpoint("http://one/v1", **how)]).tables()["caption_endpoint"]

    same = [{"url": "https://two/v1"}, {"key_env": "TINY"}, {"concurrency": 1}, {"timeout_seconds": 1}, {"tries": 1}]
    assert {table(**how) for how in same} == {table()}
    others = [{"model": "other"}, {"revision": "b"}, {"body": {"top_p": 0.5}}, {"prompt": "what is it?"}, {"frames": 2}]
    assert len({table(**how) for how in [{}, *others]}) == 6


def by_clip(*behaviours: Behaviour) -> Callable[[Asked], HttpAnswer]:
    """Behave to the first clip that is asked about as the first says, …; to all others well."""
    known: dict[str, Behaviour] = {}

    def behave(asked: Asked) -> HttpAnswer:
        behaviour = known.setdefault(asked.key, behaviours[len(known)] if len(known) < len(behaviours) else caption_of)
        return behaviour(asked)

    return behave


def test_each_failure_is_a_row_and_the_next_run_asks_again_for_what_is_unanswered(footage: Path, dataset: Path) -> None:
    lost = [error(500), slow(1.0), cut(), raw(b"{"), raw(b"\xff"), error(400, "too large")]
    ends = [
        completion("cut of", "length"),
        completion("x", "content_filter"),
        completion(None, refusal="no"),
        completion(""),
    ]
    passing = [in_turn(trouble, caption_of) for trouble in (busy(), error(500), cut(), raw(b"[]"))]
    how = {"tries": 2, "timeout_seconds": 0.5}
    with ChatServer(by_clip(*lost, *ends, *passing)) as server:
        captioned(footage, dataset, server, **how)
        rows = captions(dataset)
        asked = len(server.asked)
    everyone = clips(dataset)
    assert sorted(row["clip_id"] for row in rows) == everyone
    well = len(everyone) - len(lost) - len(ends)
    assert asked == 2 * (len(lost) - 1) + 1 + len(ends) + 2 * len(passing) + (well - len(passing))
    states = sorted((row["status"], (row["failure"] or {}).get("kind", "")) for row in rows)
    assert states == sorted(
        [("failed", "unanswered")] * 6 + [("truncated", "")] + [("blocked", "blocked")] * 2 + [("empty", "empty")]
        + [("ok", "")] * well
    )  # fmt: skip
    assert all((row["text"] is None) == (row["status"] in ("failed", "blocked", "empty")) for row in rows)
    assert {row["failure"]["message"] for row in rows if row["status"] == "failed"} == {
        "the server says 500: it did not work, at the last of 2 tries",
        "there was no whole answer in 0.5 s, at the last of 2 tries",
        "the connection ended before the whole answer had come, at the last of 2 tries",
        "its answer is not JSON, at the last of 2 tries",
        "its answer is not UTF-8, at the last of 2 tries",
        "the server says 400: too large",
    }
    unanswered = {row["clip_id"] for row in rows if row["status"] == "failed"}
    for retry_failed, left in ((False, 6), (True, 0)):
        with ChatServer() as server:
            captioned(footage, dataset, server, retry_failed=retry_failed, **how)
            assert len(server.asked) == left, "what was cut, blocked or empty is an answer"
    again = {row["clip_id"]: row for row in captions(dataset)}
    assert sorted(again) == everyone
    assert {again[clip]["status"] for clip in unanswered} == {"ok"}
    assert sorted(row["status"] for row in again.values() if row["status"] != "ok") == [
        "blocked", "blocked", "empty", "truncated"
    ]  # fmt: skip


def command(footage: Path, dataset: Path, folder: Path, server: ChatServer | str, **how: Any) -> tuple[str, ...]:
    """The command line that captions the dataset."""
    path = folder / "captioned.yaml"
    path.write_text(json.dumps({"name": "captioned", "steps": [*CLIPS, by_endpoint(server, **how)]}))
    return ("curate", str(footage), "--out", str(dataset), "--recipe", str(path))


def test_an_export_is_made_again_once_what_was_unanswered_is_answered(footage: Path, dataset: Path) -> None:
    """The same clips by the same recipe: but their captions are other ones."""
    exported = []
    for behaviour, lacking in ((error(500), 2), (caption_of, 0), (caption_of, 0)):
        with ChatServer(behaviour) as server:
            steps = [by_endpoint(server, tries=1), {"select": {"sample": {"clips": 2}}}, {"export": {"mode": "none"}}]
            (done,) = curate([str(footage)], str(dataset), recipe(steps), engine="local").exports
            exported.append(str(done.path))
            index = pq.read_table(Path(str(done.path)) / "index.parquet", columns=["caption_endpoint"])
            assert (len(index), index["caption_endpoint"].null_count) == (2, lacking)
    assert exported[0] != exported[1] == exported[2]


def test_a_server_that_goes_away_marks_nothing_as_failed(
    footage: Path, dataset: Path, tmp_path: Path, dailies: Dailies
) -> None:
    with ChatServer() as server:
        gone = server.url
    done = dailies(*command(footage, dataset, tmp_path, gone, tries=2), "--engine", "local")
    assert done.returncode not in (0, 2)
    last = " ".join(done.stderr.splitlines()[-1].split())
    assert "no server answers there, 2 times in a row; the same command resumes" in last
    assert "Traceback" not in done.stderr
    assert captions(dataset) == []
    with ChatServer() as server:
        # Half of the clips, and then it is gone.
        server.behaviour = lambda asked: (caption_of if len(server.asked) <= 10 else error(503))(asked)
        done = dailies(*command(footage, dataset, tmp_path, server, tries=2, concurrency=1), "--engine", "local")
        assert done.returncode not in (0, 2)
        kept = captions(dataset)
        assert 4 <= len(kept) <= 10
        assert {row["status"] for row in kept} == {"ok"}
    with ChatServer() as server:  # at another port: where it answers gives no caption its meaning
        assert dailies(*command(footage, dataset, tmp_path, server), "--engine", "local").returncode == 0
        assert len(server.asked) == len(clips(dataset)) - len(kept)
    assert sorted(row["clip_id"] for row in captions(dataset)) == clips(dataset)


def test_a_wrong_model_ends_the_run_in_a_line(
    footage: Path, dataset: Path, tmp_path: Path, dailies: Dailies, caplog: pytest.LogCaptureFixture
) -> None:
    with ChatServer(models=("other",)) as server:
        done = dailies(*command(footage, dataset, tmp_path, server), "--engine", "local")
    assert done.returncode == 2
    assert f"model=tiny: {server.url} does not list it; it lists: other" in caplog.text
    assert f"model='tiny', url={server.url}: the server says 404: The model `tiny` does not exist" in done.stderr
    assert captions(dataset) == []


# ---- keys -----------------------------------------------------------------------------------------------------------


def everything_left(*folders: Path) -> bytes:
    return b"".join(path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_key_is_in_nothing_that_a_run_leaves(
    engine: str,
    footage: Path,
    dataset: Path,
    tmp_path: Path,
    dailies: Dailies,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On Ray, too, whose workers have the variable from here."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TINY", KEY)
    for key, code in ((KEY, 0), ("another", 2)) if engine == "local" else ((KEY, 0),):
        # The server repeats the key in what it says.
        with ChatServer(by_clip(lambda asked: error(400, asked.headers["Authorization"])(asked)), key=key) as server:
            how = {"key_env": "TINY", "revision": key[:3]}  # another table each time
            done = dailies(*command(footage, dataset, tmp_path, server, **how), "--engine", engine)
            assert done.returncode == code, done.stderr
            assert KEY not in done.stdout + done.stderr
            assert ("TINY" in done.stderr) == (code == 2)
    assert KEY not in caplog.text
    left = everything_left(tmp_path)
    assert b"TINY" in left
    assert b"a caption of" in left
    assert b"400: Bearer ***" in left
    for secret in (KEY, KEY[3:]):
        assert secret.encode() not in left


def test_a_key_given_as_the_name_of_its_variable_is_not_shown(
    footage: Path, dataset: Path, tmp_path: Path, dailies: Dailies
) -> None:
    done = dailies(*command(footage, dataset, tmp_path, "http://localhost:9/v1", key_env=KEY), "--engine", "local")
    assert done.returncode == 2
    assert "is no name of a variable" in done.stderr
    assert KEY not in done.stdout + done.stderr


# ---- what a dataset of others says ----------------------------------------------------------------------------------


def test_what_is_recorded_sends_no_picture_anywhere(footage: Path, dataset: Path) -> None:
    """What works on a dataset's record makes no captions: a server is asked by whoever curates with a recipe that names it."""
    rest: list[dict[str, Any]] = [{"dedup": {"perceptual": False}}, {"select": {}}, {"export": {"mode": "none"}}]
    with ChatServer() as server:
        curate([str(footage)], str(dataset), recipe(rest), engine="local")
        opened = DatasetTables.open(dataset)
        (last,) = opened.table("runs").read().sort_by("number").slice(len(opened.runs(["recipe"])) - 1).to_pylist()
        forged = json.dumps({"name": "captioned", "steps": [*CLIPS, by_endpoint(server), *rest]})
        opened.table("runs").append([last | {"recipe": forged, "number": last["number"] + 1, "run_id": "forged"}])
        dedup_again(str(dataset), engine="local")
        select_again(str(dataset), "main", ["main.sample.clips=3"])
        export_again(str(dataset), "export", [], engine="local")
        assert server.asked == []


# ---- alt-text -------------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(footage: Path) -> Iterator[Path]:
    """Names the three videos, and says something of the first."""
    texts = ["  A cat\n on a mat ", " ", None]
    rows = [{"path": str(path), "alt": text} for path, text in zip(sorted(footage.glob("*.mp4")), texts, strict=True)]
    path = footage / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield path
    path.unlink()


ALT: dict[str, Any] = {"caption": {"captioner": {"alt_text": {"column": "alt"}}}}


def test_a_column_of_the_manifest_is_a_caption(footage: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    curate([str(manifest)], str(out), recipe([ALT]), engine="local")
    places = {row["source_id"]: row["uri"] for row in query(DatasetTables.open(out), "select * from clips").to_pylist()}
    states = {(Path(places[row["source_id"]]).name, row["text"], row["status"]) for row in captions(out)}
    first, *others = (path.name for path in sorted(footage.glob("*.mp4")))
    assert states == {(first, "A cat on a mat", "ok"), *((name, None, "empty") for name in others)}
    assert {row["tokens"] for row in captions(out) if row["text"]} == {5}
    assert {row["failure"]["message"] for row in captions(out) if not row["text"]} == {"manifest.alt is empty"}


def test_what_was_made_without_an_unanswered_caption_is_made_again(manifest: Path, tmp_path: Path) -> None:
    fuse = {"caption": {"captioner": {"fuse": {"scene": "caption_alt_text", "motion": "caption_endpoint"}}}}
    for behaviour, texts in ((error(500), "A cat on a mat"), (caption_of, "A cat on a mat, a caption of [0-9a-f]{12}")):
        with ChatServer(behaviour) as server:
            curate(
                [str(manifest)],
                str(tmp_path / "dataset"),
                recipe([ALT, by_endpoint(server, tries=1), fuse]),
                engine="local",
            )
        opened = DatasetTables.open(tmp_path / "dataset")
        (name,) = [name for name in opened.tables() if name.startswith("captions/fuse")]
        fused = [text for text in opened.table(name).read(["text"])["text"].to_pylist() if text]
        assert len(fused) > 2
        assert [text for text in fused if re.fullmatch(texts, text) is None] == []


def test_a_kill_between_two_deletions_leaves_nothing_that_was_made_without_an_answer(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse = {"caption": {"captioner": {"fuse": {"scene": "caption_alt_text", "motion": "caption_endpoint"}}}}
    out, deleted, delete = tmp_path / "dataset", [], Table.delete

    def killed_after_one(table: Table, *what: Any, **which: Any) -> None:
        if deleted:
            raise KeyboardInterrupt
        delete(table, *what, **which)
        deleted.extend([table.url] if "captions" in table.url else [])

    for behaviour in (error(500), None, caption_of):
        with ChatServer(behaviour or caption_of) as server, monkeypatch.context() as patch:
            steps = [ALT, by_endpoint(server, tries=1), fuse]
            if behaviour is not None:
                curate([str(manifest)], str(out), recipe(steps), engine="local")
                continue
            patch.setattr(Table, "delete", killed_after_one)
            with pytest.raises(KeyboardInterrupt):
                curate([str(manifest)], str(out), recipe(steps), engine="local")
    assert len(deleted) == 1
    opened = DatasetTables.open(out)
    (name,) = [name for name in opened.tables() if name.startswith("captions/fuse")]
    assert "A cat on a mat" not in opened.table(name).read(["text"])["text"].to_pylist()


# ---- kill -9 --------------------------------------------------------------------------------------------------------


def test_a_kill_costs_four_clips_a_request_however_many_there_are() -> None:
    bundle = EndpointCaptioner(url="http://host/v1", model=MODEL, concurrency=2).bundle
    clips = pa.table({"clip": range(100_000)})
    assert {len(units) for units in bundles(clips, 256, bundle)} == {8}
    assert max(len(units) for units in bundles(clips, 256)) == 256


def committing_at_once(arguments: list[str]) -> None:
    from dailies.pipelines import run
    from tests.test_kill import command_line

    run.COMMIT_EVERY = 0.0
    command_line(arguments)


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 3), *(pytest.param(seed, 7, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_kill_9_again_and_again_asks_twice_for_no_more_than_was_under_way(
    seed: int, kills: int, footage: Path, dataset: Path, tmp_path: Path
) -> None:
    """Each clip's caption is there exactly once in the end, and is its own."""
    FORKS.set_forkserver_preload([name for name in IMPORTS if name != "rapidocr.main"] + [__name__])
    draw, lives, finished = random.Random(seed), 0, False
    with ChatServer(slow(0.02)) as server:
        run = command(footage, dataset, tmp_path, server, concurrency=1)
        done_before: dict[str, Any] = {}
        while not finished:
            process = FORKS.Process(target=committing_at_once, args=([*run, "--engine", "local"],))
            process.start()
            lives += 1
            moment = len(server.asked) + (draw.randint(1, 12) if lives <= kills else 10**6)
            while process.exitcode is None and len(server.asked) < moment:
                time.sleep(0.002)
            process.kill()
            process.join()
            finished = process.exitcode == 0
            rows = captions(dataset)
            done_now = {row["clip_id"]: row["text"] for row in rows}
            assert len(done_now) == len(rows), "a clip was captioned twice"
            assert done_before.items() <= done_now.items(), "what was committed is lost, or was asked again"
            done_before = done_now
        assert lives > 2
        assert sorted(done_before) == clips(dataset)
        assert set(done_before.values()) == {f"a caption of {key}" for key in server.times}
        bundle = EndpointCaptioner(url=server.url, model=MODEL, concurrency=1).bundle
        assert 0 <= len(server.asked) - len(done_before) <= bundle * (lives - 1)
        assert max(server.times.values()) <= lives
