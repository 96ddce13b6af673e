"""The whole way: the quickstart, killed and started again, and one clip followed from source to card. Slow."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dailies.curation import video
from dailies.curation.tables import DatasetTables, query
from tests.conftest import Dailies

pytest.importorskip("diffusers")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the quickstart leaves behind after being killed with -9 at four seeded moments."""
    out = tmp_path_factory.mktemp("quickstart") / "made"
    command = [sys.executable, "-m", "dailies.pipelines.cli.main", "quickstart", "--out", str(out), "--engine", "local"]
    draw = random.Random(3)
    for _ in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=draw.uniform(20, 90))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    return out


def test_it_ends_whole(made: Path, dailies: Dailies) -> None:
    assert dailies("verify", made / "dataset", "--deep").returncode == 0
    assert dailies("zoo", "verify", "quickstart", "--zoo", made / "zoo").returncode == 0
    assert len(video.decode_bytes((made / "sample.mp4").read_bytes()).pts) == 8


def test_validation_loss_falls_in_each_phase(made: Path) -> None:
    phases = json.loads((made / "run" / "run.json").read_text())["phases"]
    assert [phase["name"] for phase in phases] == ["image", "video", "hq"]
    for phase in phases:
        assert phase["done"]
        assert phase["validation"][-1][1] < phase["validation"][0][1]


def test_one_clip_can_be_followed_from_source_to_card(made: Path) -> None:
    card = (made / "zoo" / "quickstart" / "README.md").read_text()
    run = json.loads((made / "run" / "run.json").read_text())
    clip = run["phases"][-1]["first_clip_ids"][0]
    assert clip in card
    dataset = DatasetTables.open(made / "dataset")
    (row,) = query(
        dataset,
        "select clips.uri, keep, exported_caption_fuse as caption_fuse, recipe_hash from observations "
        "join clips using (source_id) join selection_captioned using (clip_id) join export_export using (clip_id), runs "
        f"where clips.clip_id = '{clip}' order by started desc limit 1",
    ).to_pylist()
    assert row["keep"]
    assert Path(row["uri"]).parent == made / "videos"
    for said in (Path(row["uri"]).name, row["recipe_hash"], run["recipe_hash"], "captioned"):
        assert said in card
    index = pq.read_table(Path(run["data"]) / "index.parquet").to_pylist()
    assert next(one for one in index if one["clip_id"] == clip)["caption_fuse"] == row["caption_fuse"]
