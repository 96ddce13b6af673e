"""The RAFT scorer: what torchvision's model says of evidence, in the units of ``motion``, with weights by path."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.observers.motion import TRACKS, MotionObserver, reduced
from dailies.curation.scorers import SCORERS
from dailies.curation.scorers.raft import RaftScorer
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg, unjpeg
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.stages import score_rows

COLUMNS = ["raft_motion", "raft_pan", "raft_tilt", "raft_zoom", "raft_roll", "raft_local", "raft_camera"]


@pytest.fixture(scope="module", autouse=True)
def _installed(one_thread: None) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random ``raft_small`` and the file that its state dict was saved to, as torchvision's weights are."""
    import torch
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(1)
    model, path = raft_small().eval(), tmp_path_factory.mktemp("raft") / "raft_small.pth"
    torch.save(model.state_dict(), path)
    return model, path


def evidence(clip_id: str, frames: int, size: tuple[int, int] = (128, 96), seconds: float = 1.0) -> Evidence:
    rng = np.random.default_rng(len(clip_id))
    ground = cv2.resize(rng.integers(0, 255, (40, 60, 3), np.uint8), (300, 200), interpolation=cv2.INTER_CUBIC)
    pictures = [ground[10 : 10 + size[1], 5 * n : 5 * n + size[0]] for n in range(frames)]
    step = round(100 * seconds)
    return Evidence(
        clip_id=clip_id,
        span=Span(start=0, end=max(1, frames) * step, time_base=Fraction(1, 100)),
        frames=tuple(EvidenceFrame(pts=step * n, jpeg=jpeg(each, 95)) for n, each in enumerate(pictures)),
        columns={},
    )


def test_it_is_torchvisions_flow_of_consecutive_pairs_reduced_as_motion_is(small: Any) -> None:
    import torch

    model, path = small
    clip = evidence("a", 4, seconds=1.5)
    spec = RaftScorer(model=str(path), short_side=128, updates=3, batch=2)
    with spec.open() as score:
        row = score([clip]).to_pylist()[0]
    # 128 x 96 becomes 168 x 128: the nearest multiple of 8 to 170.7.
    pictures = [cv2.resize(unjpeg(frame.jpeg), (168, 128), interpolation=cv2.INTER_CUBIC) for frame in clip.frames]
    tensors = [torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1 for picture in pictures]
    values = []
    for before, after in pairwise(tensors):
        with torch.inference_mode():
            flow = model(before, after, num_flow_updates=3)[-1][0]
        values.append(reduced(flow.permute(1, 2, 0).contiguous().numpy(), 1.5))
    assert list(row) == COLUMNS == [column.name for column in spec.columns]
    assert row["raft_motion"] > 0.01
    for column, wanted in zip(COLUMNS, np.mean(values, axis=0), strict=False):
        assert row[column] == pytest.approx(wanted, rel=1e-3, abs=1e-4), column
    assert isinstance(row["raft_camera"], str)


def test_flow_that_is_known_comes_out_as_motion_states_it(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 px to the left at 128 px in 0.8 s: the camera turns right by 4.7 px at 240 in half a second."""
    seen: list[int] = []

    def known(before: list[Any], after: list[Any]) -> list[Any]:
        seen.append(len(before))
        return [np.broadcast_to(np.float32([-4, 0]), (*picture.shape[:2], 2)).copy() for picture in before]

    monkeypatch.setattr("dailies.curation.scorers.raft._load", lambda *_, **__: known)
    with RaftScorer(model=str(small[1]), short_side=128, batch=2).open() as score:
        row = score([evidence("a", 4, seconds=0.8)]).to_pylist()[0]
    assert seen == [2, 1]
    assert [row["raft_motion"], row["raft_pan"]] == pytest.approx([4.6875] * 2, rel=1e-5)
    assert [row[name] for name in COLUMNS[2:6]] == pytest.approx([0] * 4, abs=1e-5)
    assert row["raft_camera"] == "pan right"


def test_each_pair_counts_alike_and_by_its_own_interval(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same 4 px within 0.8, 0.8 and 1.6 s: the mean of the speeds. Excludes one interval for all, the median, and all of
    the way over all of the time."""

    def known(before: list[Any], after: list[Any]) -> list[Any]:
        return [np.broadcast_to(np.float32([-4, 0]), (*picture.shape[:2], 2)).copy() for picture in before]

    monkeypatch.setattr("dailies.curation.scorers.raft._load", lambda *_, **__: known)
    even = evidence("a", 4)
    frames = tuple(replace(frame, pts=pts) for frame, pts in zip(even.frames, (0, 80, 160, 320), strict=True))
    with RaftScorer(model=str(small[1]), short_side=128).open() as score:
        row = score([replace(even, frames=frames)]).to_pylist()[0]
    assert row["raft_pan"] == pytest.approx(4.6875 * (1 + 1 + 1 / 2) / 3, rel=1e-5)


def test_sides_are_multiples_of_eight_and_sixteen_by_nine_is_800_by_448(small: Any) -> None:
    spec = RaftScorer(model=str(small[1]))
    for size, wanted in (((160, 90), (448, 800)), ((90, 160), (800, 448)), ((120, 90), (448, 600))):
        frame = evidence("a", 1, size if size[1] <= 100 else (90, 160)).frames[0]
        assert spec._picture(frame).shape == (*wanted, 3)


def test_a_clip_with_one_evidence_frame_costs_its_own_row_only(small: Any) -> None:
    clips = [evidence("a", 2), evidence("bb", 1), evidence("ccc", 2)]
    with RaftScorer(model=str(small[1]), short_side=128, updates=1).open() as score:
        rows = score_rows("raft", score, clips)
        assert score([]).num_rows == 0
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["failure"]["kind"] == "too_few_frames"
    assert rows[0]["raft_motion"] != rows[2]["raft_motion"]


def test_the_size_is_told_from_the_weights_and_both_formats_give_the_same(small: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from torchvision.models.optical_flow import raft_large

    model, path = small
    save_file(model.state_dict(), tmp_path / "small.safetensors")
    torch.save(raft_large().state_dict(), tmp_path / "large.pth")
    specs = [RaftScorer(model=str(each), short_side=128, updates=1) for each in (path, tmp_path / "small.safetensors")]
    rows = []
    for spec in [*specs, RaftScorer(model=str(tmp_path / "large.pth"), short_side=128, updates=1)]:
        with spec.open() as score:
            rows.append(score([evidence("a", 2)]).to_pylist()[0])
    assert rows[0] == rows[1] != rows[2]


def recipe(path: Path | str) -> dict[str, Any]:
    return {
        "name": "hq",
        "steps": [
            {"observe": {"observers": ["change", "motion"]}},
            {"cut": {"detector": "content"}},
            {"score": {"scorer": {"raft": {"model": str(path)}}}},
            {"select": {"rules": {"raft_motion": {"min": 1}, "raft_camera": {"one_of": ["static"]}}}},
        ],
    }


def test_a_recipe_knows_its_columns_and_is_fingerprinted_by_the_weights(small: Any, tmp_path: Path) -> None:
    model, path = small
    copy, other = tmp_path / "copy.pth", tmp_path / "other.pth"
    copy.write_bytes(path.read_bytes())
    assert RaftScorer(model=str(path)).weights() == RaftScorer(model=str(copy)).weights()
    import torch

    torch.save({name: tensor + 1 for name, tensor in model.state_dict().items()}, other)
    named = [parse_recipe(recipe(each)).tables()["raft"] for each in (path, other)]
    assert named[0].startswith("scores/raft@")
    assert named[0] != named[1]
    before = parse_recipe(recipe(other)).tables()["raft"]
    torch.save({name: tensor + 2 for name, tensor in model.state_dict().items()}, other)
    assert parse_recipe(recipe(other)).tables()["raft"] != before
    assert SCORERS["raft"] is RaftScorer
    assert [column.metadata for column in RaftScorer.columns] == [
        measure.metadata for measure in MotionObserver.measures
    ]
    assert len(COLUMNS) == len(TRACKS) + 1


def test_what_is_no_raft_is_refused_before_work(small: Any, tmp_path: Path) -> None:
    import torch

    for wrong in (tmp_path, "raft_small"):
        with pytest.raises(RecipeError, match=r"raft: model=.*: no file of weights; give a file with RAFT's \(\.pth"):
            parse_recipe(recipe(wrong))
    absent = parse_recipe(recipe(tmp_path / "none.pth"))  # a recipe can be read where its weights are not
    with pytest.raises(UsageError, match=r"model=.*none.pth.: no such file; give a file with RAFT's weights"):
        absent.tables()
    with pytest.raises(RecipeError, match="model"):
        parse_recipe({**recipe(""), "steps": [*recipe("")["steps"][:2], {"score": {"scorer": "raft"}}]})
    half = dict(list(small[0].state_dict().items())[:50])
    torch.save(half, tmp_path / "half.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, said in (
        ("half.pth", "raft_small or raft_large"),
        ("list.pth", "not a state dict"),
        ("text.pth", "no weights that can be read"),
        ("text.safetensors", "no weights that can be read"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_recipe(recipe(tmp_path / name)).tables()


def test_sizes_that_raft_cannot_take_are_refused(small: Any) -> None:
    for wrong in ({"short_side": 450}, {"short_side": 120}, {"updates": 0}, {"batch": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RaftScorer(model=str(small[1]), **wrong)
