"""The built-in video captioner: a model of transformers' own class, trained by a command that anyone can run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from dailies.curation import world
from dailies.curation.captioners.video import VideoCaptioner
from dailies.curation.chat.chat_folder import load
from dailies.curation.chat.inputs import prepare
from dailies.curation.world.script import ShapeKind
from dailies.zoo.catalog import resolve
from scripts.builtin import clips, judge_captions, train_video, video_model
from scripts.builtin.frames import HELD_OUT
from scripts.builtin.video_batches import ClipBatch, Clips, clip_batches, patches
from scripts.builtin.video_words import video_caption

pytestmark = pytest.mark.usefixtures("one_thread")
BUILTIN = Path(__file__).resolve().parents[1] / "zoo" / "builtin" / "video-world"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Twenty-four training clips."""
    patch = pytest.MonkeyPatch()
    patch.setattr(clips, "CHUNK", 24)
    yield Clips(clips.training_clips(24, tmp_path_factory.mktemp("clips")))
    patch.undo()


def first_batch(few: Clips, batch: int) -> ClipBatch:
    return next(iter(clip_batches(few, batch=batch, steps=1, seed=1)))


def test_clips_are_kept_and_their_truth_is_that_of_their_seeds(few: Clips) -> None:
    row = 3
    script = clips.scene(int(few.clips.numbers[row]))
    assert few.shots[row] == script.shots[0]
    assert 2 <= few.clips.counts.min() <= few.clips.counts.max() <= 8
    assert few.clips.pictures(row).shape == (few.clips.counts[row], 96, 160, 3)
    x, y, _ = script.shots[0].shapes[0].at(float(few.clips.times[row, 1]))
    cx, cy, zoom = script.shots[0].camera.at(float(few.clips.times[row, 1]))
    width, height = script.size
    place = zoom * (x - width / 2 - cx) + width / 2, zoom * (y - height / 2 - cy) + height / 2
    assert np.allclose(few.clips.shapes[row, 1, 0, 2:4] * height, place, atol=0.01)


def test_heads_are_told_how_a_shape_moves_against_a_background_that_moves(few: Clips) -> None:
    for row, shot in enumerate(few.shots):
        if not any(shot.shapes[0].velocity) or not any(shot.camera.velocity):
            continue
        rows = np.array([row])
        pairs = few.pairs(rows, np.array([0]), np.array([1]), np.random.default_rng(0))
        kind = few.clips.shapes[row, 0, 0, 0]
        under = (pairs.kinds_NP[0] == kind) & pairs.known_NP[0]
        if not under.any():
            continue
        step = np.sinh(pairs.moves_NP3[0][under].numpy()) * (0.03, 0.03, 0.05)
        seconds = few.clips.times[row, 1] - few.clips.times[row, 0]
        side, _ = few.sizes[row]
        assert np.allclose(step[0, :2], np.array(shot.shapes[0].velocity) * seconds / side, atol=0.002)
        assert abs(step[0, 2]) < 0.02
        break
    else:
        pytest.fail("no clip has a shape that moves while the camera pans")


def test_training_sees_and_tells_as_the_class_does(few: Clips) -> None:
    model, processor = video_model.new_model().eval(), video_model.processor()
    row = int(np.flatnonzero(few.clips.counts >= 4)[0])
    pictures = few.clips.pictures(row)[:4]
    ready = processor.video_processor([torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2)], do_sample_frames=False)
    own = patches(torch.from_numpy(pictures.reshape(2, 2, 96, 160, 3).copy()), None)
    assert torch.allclose(torch.as_tensor(np.asarray(ready["pixel_values_videos"])), own.flatten(0, 1), atol=1e-5)

    captions = [
        video_caption(shot, short_side=side, fps=fps) for shot, (side, fps) in zip(few.shots, few.sizes, strict=True)
    ]
    teller, batch = train_video.Teller(model, processor.tokenizer, captions), first_batch(few, 1)
    with torch.no_grad():
        hidden, features = train_video.Vision(model.model.visual)(batch.pairs.patches_NPE)
        grid = torch.tensor([[batch.pairs_each, *video_model.GRID]])
        theirs = model.model.visual(batch.pairs.patches_NPE.flatten(0, 1), grid_thw=grid)
        assert torch.allclose(theirs.last_hidden_state, hidden.flatten(0, 1), atol=1e-3)
        assert torch.allclose(theirs.pooler_output, features.flatten(0, 1), atol=1e-3)

        text = "".join(
            f"<{t:.1f} seconds><|vision_start|>{'<|video_pad|>' * 15}<|vision_end|>" for t in batch.times_BT[0]
        )
        ids = processor.tokenizer(text, return_tensors="pt").input_ids
        told = processor.tokenizer(captions[int(batch.rows[0])]).input_ids
        whole = torch.cat([ids, torch.tensor([[video_model.START, *told, video_model.END]])], 1)
        labels = whole.clone()
        labels[:, : ids.shape[1] + 1] = -100
        output = model(
            input_ids=whole,
            attention_mask=torch.ones_like(whole),
            pixel_values_videos=batch.pairs.patches_NPE.flatten(0, 1),
            video_grid_thw=grid,
            mm_token_type_ids=2 * (whole == video_model.VIDEO).int(),
            labels=labels,
        )
        assert torch.allclose(output.loss, teller.loss(batch, features), atol=1e-4)


def test_a_short_training_leaves_a_model_that_the_captioner_runs(
    few: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_video, "training_clips", lambda *_: few.clips)
    args = {"out": tmp_path, "clips": tmp_path, "count": 24, "first": 0, "look": 2, "pairs": 4, "steps": 2, "batch": 32}
    more = {"heads": 0.3, "seed": 0, "lr": 1e-3, "start": None, "keep_heads": False, "threads": 1}
    train_video.train(argparse.Namespace(**args, **more))
    evidence, _ = next(iter(judge_captions.held_out(1)))
    with VideoCaptioner(model=str(tmp_path), max_tokens=4).open() as caption:
        assert caption([evidence])["status"].to_pylist()[0] in ("ok", "truncated", "empty")


# ---- the one that ships ---------------------------------------------------------------------------------------------


def test_it_is_small_and_reads_no_prompt() -> None:
    assert resolve("zoo:video-world") == BUILTIN
    assert sum(path.stat().st_size for path in BUILTIN.iterdir()) < 6e6
    loaded = load(BUILTIN, gpus=0, dtype="auto")
    assert type(loaded.model).__name__ == "Qwen3VLForConditionalGeneration"
    assert loaded.sees == "videos"
    evidence, script = next(iter(judge_captions.held_out(1)))
    prompts = ("Describe this.", "What do you see in this video?")
    asks = [VideoCaptioner(model=str(BUILTIN), prompt=text).asks([evidence])[0] for text in prompts]
    ready = [prepare(loaded, 0, ask) for ask in asks]
    assert ready[0].tokens == ready[1].tokens
    caption = video_caption(script.shots[0], short_side=180, fps=script.fps)
    for word in (*world.COLORS, *get_args(ShapeKind), "left", "towards", "quickly", "camera"):
        assert len(loaded.tokenizer(word).input_ids) == 1, word
    assert loaded.tokenizer.decode(loaded.tokenizer(caption).input_ids).strip() == caption


@pytest.fixture(scope="module")
def judged() -> Mapping[str, Mapping[str, float]]:
    """Figures of both captioners on the first 60 held-out scenes."""
    evidence, scripts = zip(*judge_captions.held_out(60, HELD_OUT), strict=True)
    image = BUILTIN.parent / "coca-world"
    return {
        "video": judge_captions.judge(judge_captions.by_video(evidence, BUILTIN), scripts),
        "image": judge_captions.judge(judge_captions.by_image(evidence, image), scripts),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "least"), [("colors", 0.9), ("shapes", 0.9), ("motion", 0.85), ("camera", 0.9), ("relations", 0.5)]
)
def test_it_tells_colours_shapes_motions_and_relations_of_scenes_it_has_not_seen(
    judged: Mapping[str, Mapping[str, float]], figure: str, least: float
) -> None:
    assert judged["video"][figure] >= least


@pytest.mark.slow
def test_a_picture_alone_tells_no_motion(judged: Mapping[str, Mapping[str, float]]) -> None:
    assert judged["image"]["motion_of_shapes"] == 0
    assert judged["image"]["colors"] > 0.85
