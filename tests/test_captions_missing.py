"""Training over an export without captions says before any work which command makes them."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from dailies.curation import export_schema, schema
from dailies.curation.tables import DatasetTables
from dailies.pipelines import captions
from dailies.training.recipes import load_recipe
from tests.conftest import Dailies
from tests.training_export import COLUMNS, build_export

MOTION = [column for column in COLUMNS if column.name == "motion"]


def dataset(folder: Path, command: str, columns: list[pa.Field] = MOTION) -> Path:
    """Return the export of a dataset that ``command`` curated, with these columns."""
    made = DatasetTables.create(folder / "my-dataset")
    row = {"run_id": "r", "started": datetime.now(UTC), "command": command, "recipe": "{}", "tables": "{}", "number": 1}
    again = row | {"run_id": "s", "command": "dailies select my-dataset", "number": 2}
    made.table("runs", schema.RUNS).append([row, again])
    folder = folder / "my-dataset" / "exports" / "export@12345678"
    export = build_export(folder, clips=2, size=(16, 16), frames=(2, 2), columns=columns)
    pq.write_table(export_schema.export_index(columns).empty_table(), export / "index.parquet")
    return export


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Videos").mkdir()
    (tmp_path / "b.mp4").write_bytes(b"")
    command = (
        "/usr/bin/dailies curate Videos --out my-dataset b.mp4 --set main.rules.motion.min=1 --no-links --column=path"
    )
    return dataset(tmp_path, command)


MENDS = "dailies curate Videos b.mp4 --out my-dataset --recipe captioned --no-links --column=path"


def test_the_error_is_the_command_that_mends_it(export: Path, dailies: Dailies) -> None:
    done = dailies("train", "tiny", "--data", export, "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"dailies: caption: phases image, video of tiny read caption_fuse (hq: none), not in {export}, which has no "
        f"captions; make them: {MENDS} (then train on the export that it prints)\n"
    )
    assert not Path("run").exists()


def test_every_column_that_is_read_is_named(export: Path, dailies: Dailies) -> None:
    done = dailies("train", "svd", "--data", export, "--out", "run")
    assert "of svd read caption_coca, caption_video, caption_summary" in done.stderr
    assert MENDS.replace("captioned", "svd") in done.stderr


def test_a_missing_package_is_said_first(export: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = dailies("train", "svd", "--data", export, "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dailies: training svd needs torch: pip install 'dailies[models]'\n"
    assert not Path("run").exists()


def test_a_phase_that_begins_with_an_image_reads_no_captions(export: Path, dailies: Dailies) -> None:
    done = dailies("train", "tiny", "--data", export, "--out", "run", "--phase", "hq")
    assert done.returncode == 2
    assert "caption" not in done.stderr
    tiny = load_recipe("tiny")
    assert [phase.name for phase in tiny.phases if captions.reads_captions(phase)] == ["image", "video"]
    svd = load_recipe("svd")
    reading = {phase.task for phase in svd.phases if captions.reads_captions(phase)}
    assert reading == {"text-to-image", "text-to-video"}
    for name in ("finetune", "lora"):
        assert not any(map(captions.reads_captions, load_recipe(name).phases))


def test_a_plan_lists_it(export: Path, dailies: Dailies) -> None:
    done = dailies("train", "tiny", "--data", export, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert any(
        line.endswith(f"{MENDS} (then train on the export that it prints)") for line in json.loads(done.stdout)["lacks"]
    )


def test_latents_say_it_too(export: Path, dailies: Dailies) -> None:
    done = dailies("export", export, "--latents", "tiny:image", "--out", "latents")
    assert done.returncode == 2
    assert done.stderr.startswith("dailies: caption: phase image of tiny read caption_fuse, not in")
    assert MENDS in done.stderr


def test_captions_by_another_name_are_offered(tmp_path: Path, dailies: Dailies) -> None:
    text = schema.field("caption_coca", pa.string(), "what it shows")
    export = dataset(tmp_path, "dailies curate gone --out x", [*MOTION, text])
    done = dailies("train", "tiny", "--data", export, "--out", tmp_path / "run")
    assert (
        "which has caption_coca; take one: --set caption=caption_coca, or make it: dailies curate SOURCE…"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("words", "sources"),
    [
        ("one.mp4 --out x --set a.b=c", ["one.mp4"]),
        ("-o x -r default one.mp4 s3://bucket/clips", ["one.mp4", "s3://bucket/clips"]),
        ("one.mp4 gone.mp4 --out x", None),
        ("My Videos --out x", None),
        ("one.mp4 one.mp4 one.mp4 one.mp4 one.mp4 --out x", None),
    ],
)
def test_sources_are_named_where_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, sources: list[str] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.mp4").touch()
    export = dataset(tmp_path, f".venv/bin/dailies curate {words}")
    out = ["--out", "my-dataset", "--recipe", "captioned"]
    assert shlex.split(captions.curate_command(str(export))) == ["dailies", "curate", *(sources or ["SOURCE…"]), *out]


def test_an_export_outside_of_a_dataset_has_placeholders(tmp_path: Path) -> None:
    export = build_export(tmp_path / "copied", clips=1, size=(16, 16), frames=(2, 2), columns=MOTION)
    assert captions.curate_command(str(export)) == "dailies curate SOURCE… --out DATASET --recipe captioned"
