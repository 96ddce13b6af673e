"""Real footage beside the repository, when it is there: every source is a row, both engines agree, what is said is so. Slow."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dailies.curation import video
from dailies.curation.tables import DatasetTables, query
from tests.conftest import Dailies
from tests.test_curate import comparable, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FOLDERS = ("clips", "cutbench", "odd")


@pytest.fixture(scope="module")
def curated(shared_data: Path, tmp_path_factory: pytest.TempPathFactory, dailies: Dailies) -> Path:
    out = tmp_path_factory.mktemp("footage") / "dataset"
    done = dailies("curate", *(shared_data / name for name in FOLDERS), "--out", out, "--engine", "local")
    assert done.returncode == 0, done.stderr
    return out


def test_every_source_is_a_row(curated: Path, shared_data: Path) -> None:
    suffixes = {".mp4", ".mov", ".webm"}
    files = [path for name in FOLDERS for path in (shared_data / name).iterdir() if path.suffix in suffixes]
    rows = table(curated, "observations")
    assert sorted(rows["uri"].to_pylist()) == sorted(map(str, files))
    broken = {Path(row["uri"]).name: row["packets_broken"] for row in rows.to_pylist() if row["packets_broken"]}
    assert broken == {"broken-packets.mp4": 1}


def test_rotated_files_come_out_upright(curated: Path) -> None:
    """Rows and evidence have the upright size; that the pixels are upright is tested on rendered files."""
    rows = {Path(row["uri"]).stem: row for row in table(curated, "observations").to_pylist() if "rotated" in row["uri"]}
    sizes = {name: video.unjpeg(row["evidence"][0]["jpeg"]).shape[:2] for name, row in rows.items()}
    assert sizes == {"rotated-90": (568, 320), "rotated-180": (320, 568), "rotated-270": (568, 320)}
    assert all((row["probe"]["height"], row["probe"]["width"]) == sizes[name] for name, row in rows.items())


def test_single_shots_are_left_whole_and_no_known_cut_is_inside_a_clip(curated: Path, shared_data: Path) -> None:
    shots = json.loads((shared_data / "clips" / "shots.json").read_text())
    clips = query(
        DatasetTables.open(curated), "select uri, first_frame, frames from clips where status = 'ok'"
    ).to_pylist()
    crossing = [
        (Path(clip["uri"]).name, cut)
        for clip in clips
        for cut in shots.get(Path(clip["uri"]).name, {}).get("cuts", [])
        if clip["first_frame"] < cut < clip["first_frame"] + clip["frames"]
    ]
    assert crossing == []


def test_exported_clips_play(curated: Path, dailies: Dailies) -> None:
    assert dailies("verify", curated, "--deep").returncode == 0
    (export,) = DatasetTables.open(curated).exports()
    index = pq.read_table(curated / "exports" / export / "index.parquet")
    assert set(index["status"].to_pylist()) == {"ok"}


def test_ray_makes_the_same_tables(curated: Path, shared_data: Path, tmp_path: Path, dailies: Dailies) -> None:
    out = tmp_path / "ray"
    done = dailies("curate", *(shared_data / name for name in FOLDERS), "--out", out, "--engine", "ray")
    assert done.returncode == 0, done.stderr
    assert comparable(out) == comparable(curated)
