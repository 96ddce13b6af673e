"""Built-in models know the rendered world only: other footage is told from it, and is not judged by what they measure."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dailies.curation import schema, world
from dailies.curation.select import Rule, Unjudged, select
from dailies.curation.tables import DatasetTables
from dailies.curation.video import Source
from dailies.pipelines import footage
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe, parse_recipe
from tests.conftest import Dailies
from tests.dataset_builder import observation

RECIPE = """\
name: small
steps:
  - observe: {observers: [boundary, motion], evidence: {fps: 2, short_side: 180}}
  - cut: {detector: boundary, min_seconds: 0.5, max_seconds: 4, validation_share: 0, test_share: 0}
  - caption: {captioner: motion}
  - score: {scorer: {clip: {caption: caption_motion}}}
  - select: {name: main, rules: {clip_similarity: {min: 1.5, nulls: drop}}}
  - export: {select: main}
"""


@pytest.fixture(scope="module")
def script() -> world.Script:
    return world.write_script(3, shots=1, shot_frames=(24, 24), text=0)


# ---- which footage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_file_says_that_it_is_of_the_rendered_world(tmp_path: Path, script: world.Script, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    ours = world.encode(script, tmp_path / f"ours{suffix}", codec=codec)
    other = world.encode(world.frames(script), tmp_path / f"other{suffix}", codec=codec)
    for path, rendered in ((ours, True), (other, False)):
        with Source(str(path)) as source:
            assert source.probe.rendered is rendered
        assert footage.is_marked(str(path)) is rendered
    assert not footage.is_marked(str(tmp_path / "gone.mp4"))
    assert not footage.is_marked("https://example.org/ours.mp4"), "nothing is fetched for it"


def sources(tmp_path: Path, rows: list[dict[str, object]], *, old: bool = False) -> set[str]:
    """Return the sources among ``rows`` that are other footage. ``old``: rows of before the file's word was kept."""
    dataset, recipe = DatasetTables.create(tmp_path / "d"), load_recipe("quickstart")
    kept = [column for column in schema.OBSERVATIONS if column.name != "rendered"]
    table = dataset.table(recipe.observations, pa.schema(kept) if old else schema.OBSERVATIONS)
    names = [column.name for column in kept] if old else schema.OBSERVATIONS.names
    whole = [observation(str(row["source_id"]), unit=row["source_id"], **row) for row in rows]
    table.append([{name: row[name] for name in names if name in row} for row in whole])
    return set(footage.other_footage(dataset, recipe).to_pylist())


def probed(name: str, frames: int, width: int = 320, **other: object) -> dict[str, object]:
    probe = {"codec": "h264", "width": width, "height": 180, "fps": 24.0, "frames": frames}
    return {"source_id": name, "uri": f"/videos/{name}.mp4", "probe": probe, **other}


def test_what_is_not_known_to_be_rendered_is_other_footage(tmp_path: Path) -> None:
    rows = [
        probed("said", 10, rendered=True),
        probed("denied", 10, rendered=False),
        probed("unknown", 10),
        probed("broken", 10, status="failed", rendered=False),
    ]
    assert sources(tmp_path, rows) == {"denied", "unknown"}


def test_a_quickstart_of_before_is_known_by_what_it_renders(tmp_path: Path) -> None:
    frames = world.truth(world.write_script((0, 3), shots=(4, 7))).frames
    rows = [
        probed("world-0-0003", frames),
        probed("world-1-0003", frames),
        probed("holiday", frames),
        probed("world-0-0004", 99),
    ]
    rows.append({**probed("x", frames), "uri": "/a/world-0-0003.mp4", "source_id": "moved"})
    rows.append({**probed("y", frames, width=640), "uri": "/b/world-0-0003.mp4", "source_id": "other size"})
    other = sources(tmp_path, rows, old=True)
    assert other == {"world-1-0003", "holiday", "world-0-0004", "other size"}


# ---- which columns --------------------------------------------------------------------------------------------------


def test_captions_and_scores_of_built_in_models_are_known() -> None:
    made = footage.WorldOnly.of(load_recipe("captioned"))
    assert made.captions == ("caption_coca", "caption_fuse"), "the merged one repeats it; the motion words are measured"
    assert made.scores == dict.fromkeys(("frame_consistency", "clip_similarity"), "zoo:coca-world")
    assert footage.WorldOnly.of(load_recipe("default")).models == {}


def test_a_built_in_model_is_known_by_its_folder_too() -> None:
    from dailies.zoo.formats.references import BUILTIN

    named = footage.WorldOnly.of(load_recipe("captioned", [f"embed.model={BUILTIN / 'coca-world'}"]))
    assert named.scores == dict.fromkeys(("frame_consistency", "clip_similarity"), "zoo:coca-world")
    real = load_recipe("captioned", ["caption_coca.model=coca_ViT-L-14", "embed.model=ViT-L-14:openai"])
    assert footage.WorldOnly.of(real).models == {}


def test_a_named_step_is_told_by_its_name() -> None:
    steps = load_recipe("captioned").source["steps"]
    steps = [
        {"score": {"scorer": "clip", "name": "own"}} if step == {"score": {"scorer": "clip"}} else step
        for step in steps
    ]
    steps[-2]["select"]["rules"] = {"own_clip_similarity": {"min": 0, "nulls": "drop"}}
    made = footage.WorldOnly.of(parse_recipe({"name": "n", "steps": steps}))
    assert made.scores == dict.fromkeys(("frame_consistency", "own_clip_similarity"), "zoo:coca-world")
    assert "--set embed.model=ViT-L-14:openai" in made.advice
    assert "own.model" not in made.advice, "its model is that of the embeddings it reads"


def test_the_advice_for_a_video_captioner_is_a_model_that_it_can_load() -> None:
    steps = [
        {"observe": {"observers": ["change"]}},
        {"cut": {"detector": "content"}},
        {"caption": {"captioner": {"video": {"model": "zoo:video-world"}}}},
    ]
    world_only = footage.WorldOnly.of(parse_recipe({"name": "n", "steps": steps}))
    assert "caption_video" in world_only.captions
    assert world_only.advice == "--set caption_video.model=Qwen/Qwen2.5-VL-7B-Instruct"


# ---- what it means --------------------------------------------------------------------------------------------------


def clips(similarity: list[float | None], sources: str) -> pa.Table:
    rows = [
        {
            **schema.empty_row(schema.clips([])),
            "clip_id": f"{n}",
            "source_id": source,
            "status": "ok",
            "start": n,
            "end": n + 1,
        }
        for n, source in enumerate(sources)
    ]
    for row, value in zip(rows, similarity, strict=True):
        row["clip_similarity"] = value
    measure = schema.field("clip_similarity", pa.float64(), "of frame and caption")
    return pa.Table.from_pylist(rows, schema=schema.clips([measure]))


def test_a_quantile_is_of_the_clips_that_the_rule_is_about() -> None:
    """Two rendered clips, w, of four; the lower half of them falls, whatever the others measure."""
    table = clips([0.9, 0.1, 0.6, 0.2], "wrwr")
    apart = {"clip_similarity": Unjudged(why="m knows the rendered world only", sources=pa.array(["r"]))}
    verdicts, limits = select(table, {"clip_similarity": Rule(min_quantile=0.5, nulls="drop")}, unjudged=apart)
    assert verdicts["reason"].to_pylist() == [None, None, "clip_similarity_low", None]
    assert limits["clip_similarity"] == {"not_applied": "2 clips: m knows the rendered world only", "min": 0.9}


def test_a_missing_value_of_other_footage_is_no_reason_and_no_error() -> None:
    table = clips([None, 0.5], "rw")
    apart = {"clip_similarity": Unjudged(why="m", sources=pa.array(["r"]))}
    for rule in (Rule(min=0.4, nulls="drop"), Rule(min=0.4)):
        verdicts, limits = select(table, {"clip_similarity": rule}, unjudged=apart)
        assert verdicts["keep"].to_pylist() == [True, True]
        assert limits["clip_similarity"]["not_applied"] == "1 clip: m"


def test_where_all_is_other_footage_there_is_no_limit() -> None:
    table = clips([0.1, 0.2], "rr")
    apart = {"clip_similarity": Unjudged(why="m", sources=pa.array(["r"]))}
    verdicts, limits = select(table, {"clip_similarity": Rule(min_quantile=0.5)}, unjudged=apart)
    assert verdicts["keep"].to_pylist() == [True, True]
    assert limits == {"clip_similarity": {"not_applied": "2 clips: m"}}


def test_the_warning_comes_where_there_is_other_footage(tmp_path: Path, script: world.Script) -> None:
    dataset, recipe = DatasetTables.create(tmp_path / "d"), load_recipe("captioned")
    ours = world.encode(script, tmp_path / "ours.mp4")
    other = world.encode(world.frames(script), tmp_path / "other.mp4")

    def warned(recipe: CurationRecipe, *paths: Path) -> str | None:
        rows = [{"source_id": schema.source_id(str(path)), "uri": str(path), "refused": None} for path in paths]
        return footage.warning(dataset, recipe, rows)

    assert warned(recipe, ours) is None
    assert warned(load_recipe("default"), other) is None
    assert warned(recipe, ours, other) == (
        "caption_coca, embed, clip: zoo:coca-world knows the rendered world only: its captions do not describe other footage, "
        "and no clip of other footage is dropped by frame_consistency, clip_similarity. For real footage: "
        "--set caption_coca.model=coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k --set embed.model=ViT-L-14:openai"
    )


def test_a_run_says_it_first_and_its_card_repeats_it(
    tmp_path: Path, script: world.Script, dailies: Dailies, caplog: pytest.LogCaptureFixture
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    (tmp_path / "small.yaml").write_text(RECIPE)
    world.encode(script, videos / "ours.mp4")
    world.encode(world.frames(world.write_script(4, shots=1, shot_frames=(24, 24), text=0)), videos / "other.mp4")
    done = dailies("curate", videos, "--out", out, "--recipe", tmp_path / "small.yaml", "--engine", "local")
    assert done.returncode == 0, done.stderr
    assert [record.message.partition(":")[0] for record in caplog.records] == ["clip"]
    assert "clip_similarity: no rule applied to 1 clip: zoo:coca-world knows the rendered world only" in done.stdout
    assert "clip_similarity < 1.5" in done.stdout, "the rendered clip is judged"
    sentence = "clip_similarity: measured by a built-in model, which knows the rendered world only; 1 of 2 sources are"
    assert sentence in done.stdout
    (card,) = out.glob("exports/*@*/README.md")
    assert "measured by a built-in model" in card.read_text()
    assert json.loads((card.parent / "export.json").read_text())["limits"]["clip_similarity"]["not_applied"]
    again = dailies("select", out, "--set", "main.rules.clip_similarity.min=1.2", "--json")
    assert json.loads(again.stdout)["kept"] == 1
    assert json.loads(again.stdout)["limits"]["clip_similarity"]["not_applied"].startswith("1 clip: ")
