"""Curation from end to end, through the command line, on rendered videos whose truth is known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dailies.curation import packages, video, world
from dailies.curation.tables import DatasetTables, query
from tests.conftest import Dailies
from tests.test_engine import nothing_alone

FAST = ["--recipe", str(Path(__file__).with_name("plain.yaml")), "--set", "export.preset=ultrafast"]
# For what is about sources and clips only: no text to find, nothing to encode, and one child process less to start.
CLIPS = """
name: clips
steps:
  - observe: {observers: [boundary, motion], evidence: {fps: 2, short_side: 90}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 4}
"""


def table(dataset: Path, name: str) -> pa.Table:
    opened = DatasetTables.open(dataset)
    (found,) = [table for table in opened.tables() if table.split("@")[0] == name]
    return opened.table(found).read()


def comparable(dataset: Path) -> dict[str, str]:
    """Everything that must not depend on the engine or on how often a run was killed; NaN equals NaN."""
    out: dict[str, str] = {}
    for name, key in (
        ("observations", "source_id"),
        ("clips/boundary", "clip_id"),
        ("scores/text", "clip_id"),
        ("selections/main", "clip_id"),
    ):
        rows = table(dataset, name).sort_by(key)
        out[name] = repr(rows.drop_columns([c for c in ("seconds_taken",) if c in rows.column_names]).to_pylist())
    (export,) = DatasetTables.open(dataset).exports()
    index = pq.read_table(dataset / "exports" / export / "index.parquet")
    # An encoder's bytes may differ from run to run by a few; the clips in them do not.
    out[export.split("@")[0]] = repr(index.drop_columns(["bytes"]).sort_by("clip_id").to_pylist())
    return out


@pytest.fixture(scope="module")
def curated(small_world: Path, tmp_path_factory: pytest.TempPathFactory, dailies: Dailies) -> Path:
    out = tmp_path_factory.mktemp("curated") / "dataset"
    done = dailies("curate", small_world, "--out", out, *FAST, "--engine", "local")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def clips_only(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("recipe") / "clips.yaml"
    path.write_text(CLIPS)
    return ["--recipe", str(path), "--engine", "local"]


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_every_source_is_a_row(curated: Path, small_world: Path) -> None:
    rows = table(curated, "observations")
    assert sorted(rows["uri"].to_pylist()) == sorted(map(str, small_world.glob("*.mp4")))
    assert set(rows["status"].to_pylist()) == {"ok"}


def shots_of(truth: dict[str, Any], uri: str) -> list[tuple[int, int]]:
    return [(shot["frame"], shot["end"]) for shot in truth[Path(uri).name]["shots"]]


def test_every_clip_is_inside_its_shot(curated: Path, truth: dict[str, Any]) -> None:
    clips = table(curated, "clips/boundary").to_pylist()
    assert len(clips) >= 10
    for clip in clips:
        if clip["status"] == "ok":
            first, last = clip["first_frame"], clip["first_frame"] + clip["frames"]
            inside = [shot for shot in shots_of(truth, clip["uri"]) if shot[0] <= first and last <= shot[1]]
            assert inside, f"{clip['uri']} [{first}, {last}) is in none of {shots_of(truth, clip['uri'])}"


def test_most_of_the_footage_ends_up_in_clips(curated: Path, truth: dict[str, Any]) -> None:
    whole = sum(end - start for name in truth for start, end in shots_of(truth, name))
    assert pc.sum(table(curated, "clips/boundary")["frames"]).as_py() > 0.5 * whole


def test_clip_measures_follow_the_truth(curated: Path, truth: dict[str, Any]) -> None:
    """Still shots score next to nothing, and what is dropped for its text has text on it."""
    rows = query(
        DatasetTables.open(curated),
        "select uri, first_frame, frames, motion, text_area, keep, reasons from clips join scores_text using (clip_id) "
        "join selection_main using (clip_id)",
    ).to_pylist()
    kinds: set[str] = set()
    for row in rows:
        shot = next(
            shot for shot in truth[Path(row["uri"]).name]["shots"] if shot["frame"] <= row["first_frame"] < shot["end"]
        )
        kinds |= {"still"} if shot["still"] else {"moving"}
        kinds |= {"text"} if shot["mean_text_share"] > 0.1 else set() if shot["texts"] else {"no text"}
        if shot["still"]:
            assert row["motion"] < 0.1
            assert "motion_low" in row["reasons"]
        if shot["mean_text_share"] > 0.1:
            assert "text_area_high" in row["reasons"]
        if not shot["texts"]:
            assert row["text_area"] < 0.01
    assert kinds == {"still", "moving", "text", "no text"}  # all of it was there to be told


def test_every_dropped_clip_has_its_reason(curated: Path) -> None:
    verdicts = table(curated, "selections/main").to_pylist()
    assert len(verdicts) == len(table(curated, "clips/boundary"))
    assert any(row["keep"] for row in verdicts)
    assert all((row["reason"] is None) == row["keep"] == (row["reasons"] == []) for row in verdicts)
    assert all(row["keep"] or row["reason"] == row["reasons"][0] for row in verdicts)


def test_splits_never_share_a_source(curated: Path) -> None:
    rows = query(DatasetTables.open(curated), "select source_id, count(distinct split) n from clips group by source_id")
    assert set(rows["n"].to_pylist()) == {1}


def export_of(dataset: Path) -> Path:
    (name,) = DatasetTables.open(dataset).exports()
    return dataset / "exports" / name


def splits_of(dataset: Path) -> list[str]:
    """The splits the export has: which they are follows from the bytes of the few sources, thus from the encoder."""
    return sorted(set(pq.read_table(export_of(dataset) / "index.parquet")["split"].to_pylist()))


def test_shards_hold_exactly_the_kept_clips(curated: Path) -> None:
    index = pq.read_table(export_of(curated) / "index.parquet")
    kept = table(curated, "selections/main").filter(pc.field("keep"))
    assert sorted(index["clip_id"].to_pylist()) == sorted(kept["clip_id"].to_pylist())
    assert set(index["status"].to_pylist()) == {"ok"}
    for row in index.to_pylist():
        shard = pq.ParquetFile(export_of(curated) / row["shard"])
        there = shard.read_row_group(row["row_group"]).slice(row["row"], 1).to_pylist()[0]
        assert there["clip_id"] == row["clip_id"]
        assert len(there["video"]) == row["bytes"]
        assert Path(row["shard"]).name.startswith(row["split"])


def test_exported_clips_are_the_sources_frames(curated: Path) -> None:
    row = pq.read_table(export_of(curated) / "data").slice(0, 1).to_pylist()[0]
    clip = video.decode_bytes(row["video"])
    from fractions import Fraction

    from dailies.curation.timing import Span

    base = Fraction(row["time_base_num"], row["time_base_den"])
    places = {source["source_id"]: source["uri"] for source in table(curated, "observations").to_pylist()}
    assert row["uri"] == Path(places[row["source_id"]]).name, "exports name files, and not where they lie"
    source = video.read_span(
        places[row["source_id"]], Span(start=row["source_start"], end=row["source_end"], time_base=base)
    )
    assert clip.pixels.shape == source.pixels.shape == (row["frames"], row["height"], row["width"], 3)
    assert abs(clip.pixels.astype(int) - source.pixels).mean() < 3
    steps = (clip.pts - clip.pts[0]) * clip.time_base
    assert list(steps) == list((source.pts - source.pts[0]) * source.time_base)


def test_media_lies_uncompressed_in_small_row_groups(curated: Path) -> None:
    shard = next((export_of(curated) / "data").glob("*.parquet"))
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert columns["video"].compression == "UNCOMPRESSED"
    assert columns["uri"].compression == "ZSTD"
    assert group.total_byte_size <= 40_000_000


def test_a_shard_opens_in_datasets_and_its_clips_play(curated: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    for split in splits_of(curated):
        rows = load_dataset(str(export_of(curated)), split=split, cache_dir=str(tmp_path))
        shards = sorted((export_of(curated) / "data").glob(f"{split}-*.parquet"))
        stored = [clip_id for shard in shards for clip_id in pq.read_table(shard)["clip_id"].to_pylist()]
        assert rows["clip_id"][:] == stored
        assert video.count_frames(rows[0]["video"]) == rows[0]["frames"]
        stream = load_dataset(str(export_of(curated)), split=split, streaming=True, cache_dir=str(tmp_path))
        assert next(iter(stream))["clip_id"] == rows[0]["clip_id"]


def test_the_card_says_where_it_came_from(curated: Path) -> None:
    card = (export_of(curated) / "README.md").read_text()
    run = table(curated, "runs").to_pylist()[0]
    splits = [f"| {split} |" for split in splits_of(curated)]
    for said in ("Audio is dropped", run["recipe_hash"], '"motion": {"min": 0.5', "version", *splits):
        assert said in card


# ---- doing it again -------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_again(curated: Path, small_world: Path, dailies: Dailies) -> None:
    before = {path: path.stat().st_mtime_ns for path in curated.rglob("*.parquet") if "selections" not in str(path)}
    done = dailies("curate", small_world, "--out", curated, *FAST, "--engine", "local")
    assert done.returncode == 0
    assert done.stderr.count("nothing to do") == 3
    after = {path: path.stat().st_mtime_ns for path in curated.rglob("*.parquet")}
    assert before.items() <= after.items()
    assert [
        path for path in after if path not in before and "/runs/" not in str(path) and "selections" not in str(path)
    ] == []


@pytest.mark.slow  # test_kill's runs on Ray and in processes are compared with one of the plain loop, too
@pytest.mark.parametrize("engine", [("--engine", "ray"), ("--engine", "local", "--workers", "2")], ids=" ".join)
def test_ray_processes_and_the_plain_loop_make_the_same_tables(
    engine: tuple[str, ...],
    curated: Path,
    small_world: Path,
    tmp_path: Path,
    dailies: Dailies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing_alone(monkeypatch)
    done = dailies("curate", small_world, "--out", tmp_path / "other", *FAST, *engine)
    assert done.returncode == 0, done.stderr
    assert comparable(tmp_path / "other") == comparable(curated)


def test_verify_gc_and_sql_agree_that_it_is_whole(curated: Path, dailies: Dailies) -> None:
    assert dailies("verify", curated, "--deep").returncode == 0
    asked = dailies("sql", curated, "select count(*) n from observations", "--json")
    assert json.loads(asked.stdout) == [{"n": 5}]
    assert dailies("gc", curated).returncode == 0
    assert dailies("verify", curated, "--deep").returncode == 0


def test_another_threshold_recomputes_nothing(curated: Path, dailies: Dailies) -> None:
    scored = {path for path in curated.rglob("*.parquet") if "selections" not in str(path) and "runs" not in str(path)}
    again = dailies("select", curated, "--set", "main.rules.motion.min=1e6", "--json")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert report["kept"] == 0
    assert report["reasons"]["motion_low"] > 0
    back = json.loads(dailies("select", curated, "--set", "main.rules.motion.min=0.5", "--json").stdout)
    assert back["kept"] > 0
    assert {p for p in curated.rglob("*.parquet") if "selections" not in str(p) and "runs" not in str(p)} == scored


# ---- what does not work ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good video among everything that is not one."""
    folder = tmp_path_factory.mktemp("bad")
    script = world.write_script(3, shots=2, shot_frames=(30, 40), transitions=("cut",))
    good = world.encode(script, folder / "good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "truncated.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    one = next(iter(world.frames(script)))
    world.encode(iter([one]), folder / "one-frame.mp4", fps=24)
    audio_only(folder / "audio.mp4")
    os.mkfifo(folder / "hangs.mp4")
    return folder


def audio_only(path: Path) -> None:
    code = (
        "import sys, av, numpy as np\n"
        "with av.open(sys.argv[1], 'w') as out:\n"
        "    stream = out.add_stream('aac', rate=48000)\n"
        "    frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format='fltp', layout='mono')\n"
        "    frame.sample_rate = 48000\n"
        "    for packet in [*stream.encode(frame), *stream.encode(None)]: out.mux(packet)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_bad_files_are_rows_with_reasons_and_the_rest_goes_on(
    bad_folder: Path, tmp_path: Path, dailies: Dailies
) -> None:
    out = tmp_path / "dataset"
    done = dailies(
        "curate", bad_folder, "--out", out, *FAST, "--engine", "local", "--set", "observe.stall_seconds=3", "--json"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["sources"]["given"], summary["sources"]["ok"]) == (7, 1)
    kinds = {Path(uri).name: kind for uri, kind, _ in summary["sources"]["failures"]}
    assert kinds == {
        "empty.mp4": "unreadable",
        "text.mp4": "unreadable",
        "truncated.mp4": kinds["truncated.mp4"],  # whether it opens at all depends on where the header lies
        "one-frame.mp4": "too_few_frames",
        "audio.mp4": "no_video",
        "hangs.mp4": "unreadable",  # a pipe, which is not waited for
    }
    assert kinds["truncated.mp4"] in ("unreadable", "truncated")
    rows = {Path(row["uri"]).name: row for row in table(out, "observations").to_pylist()}
    assert len(rows) == 7
    assert all(row["failure"]["message"] for name, row in rows.items() if name != "good.mp4")
    assert len(export_rows := pq.read_table(export_of(out) / "index.parquet")) > 0
    assert set(export_rows["status"].to_pylist()) == {"ok"}


def test_failed_sources_are_done_until_asked_for_again(tmp_path: Path, dailies: Dailies, clips_only: list[str]) -> None:
    (tmp_path / "bad.mp4").write_text("nothing")
    world.encode(world.write_script(4, shots=1), tmp_path / "good.mp4")
    run = ("curate", tmp_path, "--out", tmp_path / "dataset", *clips_only)

    def taken() -> dict[str, float]:
        rows = table(tmp_path / "dataset", "observations").to_pylist()
        return {Path(row["uri"]).name: row["seconds_taken"] for row in rows}

    assert dailies(*run).returncode == 0
    first = taken()
    assert dailies(*run).returncode == 0
    assert taken() == first
    assert dailies(*run, "--retry-failed").returncode == 0
    again = taken()
    assert again["good.mp4"] == first["good.mp4"]
    assert again["bad.mp4"] != first["bad.mp4"]


def test_a_missing_file_is_a_row_and_is_done_when_it_is_there(
    tmp_path: Path, dailies: Dailies, clips_only: list[str]
) -> None:
    (tmp_path / "list.txt").write_text("later.mp4\nother.mp4\n")
    world.encode(world.write_script(4, shots=1), tmp_path / "other.mp4")
    run = ("curate", tmp_path / "list.txt", "--out", tmp_path / "dataset", *clips_only, "--json")
    assert json.loads(dailies(*run).stdout)["sources"]["ok"] == 1
    world.encode(world.write_script(5, shots=1), tmp_path / "later.mp4")
    assert json.loads(dailies(*run).stdout)["sources"]["ok"] == 2


def test_all_failed_is_exit_code_one(tmp_path: Path, dailies: Dailies) -> None:
    (tmp_path / "text.mp4").write_text("nothing")
    done = dailies("curate", tmp_path, "--out", tmp_path / "dataset", *FAST, "--engine", "local")
    assert done.returncode == 1
    assert "1 of 1 source failed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["."], ".: no video in this folder"),
        ([".", "--recipe", "sdv"], "no recipe 'sdv'; allowed: captioned, cosmos, cpu, "),
        ([".", "--set", "cut.minimum=3"], "unknown key 'minimum' in step cut; allowed: detector, min_seconds, "),
        ([".", "--set", "main.rules.beauty.min=3"], "unknown column 'beauty'; allowed:"),
        ([".", "--engine", "spark"], "engine=spark: no such engine; allowed: auto, local, ray"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two_before_work_starts(
    arguments: list[str], said: str, tmp_path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    done = dailies("curate", *arguments, "--out", tmp_path / "dataset")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["curate"], "SOURCE...: missing; write "),
        (["curate", "x", "--oot", "y"], " curate has no such option (did you mean --out?)"),
        (["crate"], "crate: no such command (did you mean curate?)"),
        (["verify", "nowhere"], "nowhere: there is no dataset"),
        (["sql", "nowhere", "select 1"], "nowhere: there is no dataset"),
        (["cuts", "nowhere.mp4"], "nowhere.mp4: no such file or folder"),
    ],
)
def test_misuse_of_any_command_is_one_line_and_exit_code_two(arguments: list[str], said: str, dailies: Dailies) -> None:
    done = dailies(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_step_whose_packages_are_missing_is_refused_before_work_starts(
    tmp_path: Path, small_world: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = packages.find_spec
    hidden = packages.EXTRAS["models"]
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in hidden else find_spec(name))
    done = dailies("curate", small_world, "--out", tmp_path / "dataset", "--recipe", "captioned")
    assert done.returncode == 2
    assert (
        done.stderr
        == "dailies: step caption_coca needs open_clip, torch, transformers: pip install 'dailies[models]'\n"
    )
    assert not (tmp_path / "dataset").exists()


def test_a_still_longer_than_a_clip_may_be_is_counted_and_no_end_of_the_run(tmp_path: Path, dailies: Dailies) -> None:
    """A slide show holds one frame for longer than ``max_seconds``."""
    import av

    with av.open(str(tmp_path / "slides.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 1000)
        for number, pts in enumerate((0, 6000, 12000, 12040)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    done = dailies(
        "curate", tmp_path / "slides.mp4", "--out", tmp_path / "dataset", *FAST, "--engine", "local", "--json"
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["clips"]["counts"]
    assert counts["too_long"] == 2


# ---- cuts -----------------------------------------------------------------------------------------------------------


def test_cuts_as_json_name_the_first_frame_of_each_new_shot(tmp_path: Path, dailies: Dailies) -> None:
    script = world.write_script(2, shots=4, shot_frames=(40, 60), transitions=("cut", "cut", "cut"), still=1.0, text=0)
    clip = world.encode(script, tmp_path / "clip.mp4")
    done = dailies("cuts", clip, "--json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # who reads JSON is shown no progress
    frames = [cut.frame for cut in world.truth(script).cuts]
    assert json.loads(done.stdout) == {str(clip): [{"frame": frame, "end": frame, "kind": "cut"} for frame in frames]}


def test_cuts_goes_on_past_a_broken_file(tmp_path: Path, dailies: Dailies) -> None:
    good = world.encode(world.write_script(2, shots=1), tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_text("no")
    done = dailies("cuts", tmp_path, "--json")
    assert done.returncode == 0
    assert list(json.loads(done.stdout)) == [str(good)]
    assert "bad.mp4" in done.stderr


# ---- later ----------------------------------------------------------------------------------------------------------


def test_a_changed_source_is_done_again_and_its_old_clips_are_gone(tmp_path: Path, dailies: Dailies) -> None:
    clip = tmp_path / "videos" / "one.mp4"
    clip.parent.mkdir()
    run = ("curate", clip.parent, "--out", tmp_path / "dataset", *FAST, "--engine", "local", "--json")
    world.encode(world.write_script(6, shots=2, text=0, still=0), clip)
    assert dailies(*run).returncode == 0
    before = set(table(tmp_path / "dataset", "clips/boundary")["clip_id"].to_pylist())
    world.encode(world.write_script(7, shots=2, text=0, still=0), clip)
    summary = json.loads(dailies(*run).stdout)
    assert summary["sources"]["changed"] == [str(clip)]
    after = set(table(tmp_path / "dataset", "clips/boundary")["clip_id"].to_pylist())
    assert after
    assert not before & after
    assert dailies("verify", tmp_path / "dataset").returncode == 0


def test_a_withdrawn_source_that_comes_back_is_exported_again(tmp_path: Path, dailies: Dailies) -> None:
    for number in (6, 7):
        world.encode(world.write_script(number, shots=2, text=0, still=0), tmp_path / f"{number}.mp4")
    run = ("curate", tmp_path, "--out", tmp_path / "dataset", *FAST, "--engine", "local", "--json")
    before = json.loads(dailies(*run).stdout)["exports"][0]
    assert dailies("withdraw", tmp_path / "dataset", tmp_path / "7.mp4").returncode == 0
    after = json.loads(dailies(*run, "--readmit", tmp_path / "7.mp4").stdout)["exports"][0]
    assert after["splits"] == before["splits"]
    assert after["path"] != before["path"]


def test_an_export_whose_sources_are_gone_says_so_and_is_made_when_they_are_back(
    tmp_path: Path, dailies: Dailies
) -> None:
    clip = world.encode(world.write_script(6, shots=2, text=0, still=0), tmp_path / "6.mp4")
    run = ("curate", tmp_path / "*.mp4", "--out", tmp_path / "dataset", *FAST, "--engine", "local", "--json")
    assert dailies(*run).returncode == 0
    clip.rename(tmp_path / "away")
    lost = json.loads(
        dailies("export", tmp_path / "dataset", "--set", "export.crf=30", "--engine", "local", "--json").stdout
    )
    assert lost["path"] is None
    assert lost["failed"] > 0
    (tmp_path / "away").rename(clip)
    back = json.loads(
        dailies("export", tmp_path / "dataset", "--set", "export.crf=30", "--engine", "local", "--json").stdout
    )
    assert back["failed"] == 0
    assert sum(back["splits"].values()) == lost["failed"]


def test_names_that_look_like_markup_or_are_not_utf8(tmp_path: Path, dailies: Dailies) -> None:
    (tmp_path / "Title [dqw4w9] x[").mkdir()
    (tmp_path / "Title [dqw4w9] x[" / "y].mp4").write_text("no video")
    world.encode(world.write_script(6, shots=1), tmp_path / "ünïcode & [0].mp4")
    (tmp_path / os.fsdecode(b"latin-\xe9.mp4")).write_bytes(b"no video")
    done = dailies("curate", tmp_path, "--out", tmp_path / "data set", *FAST, "--engine", "local")
    assert done.returncode == 0, done.stderr
    assert "2 of 3 sources failed" in done.stdout
    assert "[dqw4w9]" in done.stdout


def test_withdrawn_sources_leave_every_table_and_export(tmp_path: Path, curated: Path, dailies: Dailies) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(curated, out, symlinks=True)  # one that was moved is as good
    index = pq.read_table(export_of(out) / "index.parquet").to_pylist()
    gone = index[0]["uri"]
    (place,) = [uri for uri in table(out, "observations")["uri"].to_pylist() if Path(uri).name == gone]
    assert dailies("withdraw", out, place).returncode == 0
    for name in ("observations", "clips/boundary", "scores/text", "selections/main"):
        assert index[0]["source_id"] not in table(out, name)["source_id"].to_pylist()
    left = pq.read_table(export_of(out) / "index.parquet")
    assert gone not in left["uri"].to_pylist()
    manifest = json.loads((export_of(out) / "export.json").read_text())
    assert sum(split["clips"] for split in manifest["splits"].values()) == len(left) < len(index)
    assert f"\n{len(left)} clips of one shot each" in (export_of(out) / "README.md").read_text()
    (export_of(out) / "export.json").write_text(json.dumps(manifest | {"sources": 99}))
    assert "counts are not those of the index" in dailies("verify", out).stdout
    (export_of(out) / "export.json").write_text("{")
    assert "export.json is not JSON" in dailies("verify", out).stdout
    (export_of(out) / "export.json").write_text(json.dumps(manifest))
    assert dailies("verify", out, "--deep").returncode == 0
    assert dailies("withdraw", out, place).returncode == 0, "a second one finishes what a killed one left"
    assert dailies("withdraw", out, "never.mp4").returncode == 2


def test_rules_that_select_changed_are_told_where_the_recipe_puts_its_own_back(
    small_world: Path, tmp_path: Path, dailies: Dailies, caplog: pytest.LogCaptureFixture
) -> None:
    out, again = tmp_path / "dataset", ["--engine", "local", *FAST]
    videos = sorted(small_world.glob("*.mp4"))[:1]
    assert dailies("curate", *videos, "--out", out, *again).returncode == 0
    assert dailies("select", out, "--set", "main.rules.motion.min=7").returncode == 0
    caplog.clear()
    assert dailies("curate", *videos, "--out", out, *again).returncode == 0
    (line,) = [record.getMessage() for record in caplog.records if "other rules" in record.getMessage()]
    assert line.startswith("selection main: made by other rules before; now by this recipe's: motion min=7.0 → min=")
    caplog.clear()
    assert dailies("curate", *videos, "--out", out, *again).returncode == 0
    assert not [record for record in caplog.records if "other rules" in record.getMessage()]
