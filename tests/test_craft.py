"""CRAFT: the network against a second writing of it, words from maps that are known, and the scorer with it."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.scorers.craft import DEVIATION, MEAN, SHAPES, Craft, words_in
from dailies.curation.scorers.dbnet import union_area
from dailies.curation.scorers.text import TextScorer
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg
from dailies.pipelines.recipes.recipe import load_recipe, parse_recipe
from dailies.pipelines.recipes.weights import weights_of
from tests.craft_weights import published, reference, seeing_light

# ---- words from maps ------------------------------------------------------------------------------------------------


def maps(height: int = 60, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)


def blob(map_hw: np.ndarray, x: float, y: float, spread: float, peak: float = 1.0) -> None:
    """A Gaussian, as the paper's truth has one for each character."""
    down, across = np.mgrid[: map_hw.shape[0], : map_hw.shape[1]]
    square = ((across - x) ** 2 + (down - y) ** 2) / spread**2
    np.maximum(map_hw, peak * np.exp(-square / 2), out=map_hw)


def two_words(*, linked: bool) -> tuple[np.ndarray, np.ndarray]:
    """Three and two characters, linked within each word and, if ``linked``, between them."""
    region, link = maps()
    for x in (12, 26, 40, 70, 84):
        blob(region, x, 30, 5)
    for x in (19, 33, 77, *((48, 55, 62) if linked else ())):
        blob(link, x, 30, 5)
    return region, link


def spans(boxes: list[Any]) -> list[tuple[float, float]]:
    return sorted((float(box.corners_42[:, 0].min()), float(box.corners_42[:, 0].max())) for box in boxes)


def test_links_part_and_join_words() -> None:
    apart, joined = spans(words_in(*two_words(linked=False))), spans(words_in(*two_words(linked=True)))
    assert len(apart) == 2
    assert apart[0][0] < 12 < 40 < apart[0][1] < 55 < apart[1][0] < 70 < 84 < apart[1][1]
    assert len(joined) == 1
    assert joined[0] == pytest.approx((apart[0][0], apart[1][1]), abs=3)


def test_without_links_each_character_is_a_word() -> None:
    region, _ = two_words(linked=False)
    assert len(words_in(region, np.zeros_like(region))) == 5


def test_links_alone_widen_no_word() -> None:
    """What only the link map reaches joins, and is in no box: a tail of links behind the last character."""
    region, link = two_words(linked=False)
    plain = spans(words_in(region, link))
    for x in (91, 98, 105):
        blob(link, x, 30, 5)
    assert spans(words_in(region, link))[1] == pytest.approx(plain[1], abs=2)
    assert words_in(np.zeros_like(region), link) == []


def test_thresholds_are_respected() -> None:
    for peak, count in ((0.69, 0), (0.71, 1)):
        region, link = maps()
        blob(region, 40, 30, 6, peak)
        found = words_in(region, link)
        assert len(found) == count
    assert found[0].score == pytest.approx(0.71)
    region, link = maps()
    region[20:30, 20:60], region[22, 30] = 0.39, 0.9  # one pixel of a character in what is below the low threshold
    assert words_in(region, link) == []
    region[20:30, 20:60] = 0.41
    region[22, 30] = 0.9
    assert len(words_in(region, link)) == 1
    for between, count in ((0.39, 2), (0.41, 1)):
        region, link = two_words(linked=False)
        link[28:32, 40:72] = np.maximum(link[28:32, 40:72], between)
        assert len(words_in(region, link)) == count
    for pixels, count in ((9, 0), (10, 1)):
        region, link = maps()
        region[10, 10 : 10 + pixels] = 1
        assert len(words_in(region, link)) == count


@pytest.mark.parametrize(
    ("angle", "length", "height"), [(0, 63 + 6, 11 + 6), (90, 63 + 6, 11 + 6), (30, 64 + 9.56, 12 + 9.56)]
)
def test_a_words_box_is_the_rectangle_about_it_grown_by_a_square(angle: int, length: float, height: float) -> None:
    """Of a bar of 64 x 12 px, the outermost middles of pixels are 63 x 11 apart, and 2 sqrt(12) = 6.9 px are added. On a slant,
    where they are 64 x 12 apart, it is 2 sqrt(768 / 61) = 7.1, of a square that is 7 (cos 30° + sin 30°) across it. Excludes
    the upright box, and one that has not grown."""
    region, link = maps(160, 160)
    down, across = np.mgrid[:160, :160] + 0.5 - 80
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    region[(abs(across * cos + down * sin) < 32) & (abs(down * cos - across * sin) < 6)] = 1
    (box,) = words_in(region, link)
    assert (box.length, box.height) == pytest.approx((length, height), rel=0.02)
    assert box.corners_42.mean(0) == pytest.approx((80, 80), abs=0.3)


def test_a_box_about_as_wide_as_high_is_upright() -> None:
    region, link = maps(100, 100)
    cv2.fillPoly(region, [np.array([(50, 20), (80, 50), (50, 80), (20, 50)])], 1)
    (box,) = words_in(region, link)
    left, top = box.corners_42.min(0)
    assert sorted(map(tuple, box.corners_42)) == sorted(
        (x, y) for x in (left, box.corners_42[:, 0].max()) for y in (top, box.corners_42[:, 1].max())
    )


# ---- the network ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _installed(one_thread: None) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The second writing, and a checkpoint of it as the published one is."""
    import torch

    torch.manual_seed(1)
    model, path = reference(), tmp_path_factory.mktemp("craft") / "craft_mlt_25k.pth"
    torch.save(published(model.state_dict()), path)
    return model, path


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("craft") / "light.pth"
    torch.save(seeing_light(), path)
    return path


def test_the_maps_are_the_networks_at_half_size(random: tuple[Any, Path]) -> None:
    import torch

    model, path = random
    rgb = np.random.default_rng(1).integers(0, 256, (50, 90, 3), np.uint8)
    padded = np.zeros((64, 96, 3), np.float32)
    padded[:50, :90] = rgb / 255
    with torch.inference_mode():
        wanted = model(torch.from_numpy((padded - np.float32(MEAN)) / np.float32(DEVIATION)).permute(2, 0, 1)[None])[0]
    assert float(wanted.std()) > 0.1
    for got, each in zip(Craft(str(path)).maps(rgb, 1), wanted.numpy()[:, :25, :45], strict=True):
        assert got.shape == (25, 45)
        assert got == pytest.approx(each, rel=1e-4, abs=1e-4 * float(each.std()))
    assert [each.shape for each in Craft(str(path)).maps(rgb, 0.5)] == [(13, 23)] * 2


def test_the_tensors_are_the_checkpoints(random: tuple[Any, Path]) -> None:
    there = {name: tuple(tensor.shape) for name, tensor in random[0].state_dict().items()}
    assert {name: shape for name, shape in there.items() if not name.endswith("num_batches_tracked")} == SHAPES


# ---- the scorer -----------------------------------------------------------------------------------------------------


def clip_of(*pictures: np.ndarray) -> Evidence:
    frames = tuple(EvidenceFrame(pts=number, jpeg=jpeg(each, 95)) for number, each in enumerate(pictures))
    return Evidence(clip_id="a", span=Span(start=0, end=9, time_base=Fraction(1, 10)), frames=frames)


def picture(*bars: tuple[int, int, int, int]) -> np.ndarray:
    rgb = np.full((160, 320, 3), 40, np.uint8)
    for left, top, right, bottom in bars:
        rgb[top:bottom, left:right] = 255
    return rgb


def test_areas_are_of_crafts_boxes_whole_frame_by_whole_frame(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """White bars count as words. A square and a high one count too, as for SVD; each frame is looked at once, and whole."""
    looked: list[tuple[int, ...]] = []
    maps_of = Craft.maps

    def counted(self: Craft, rgb: np.ndarray, zoom: float) -> Any:
        looked.append((*rgb.shape[:2], zoom))
        return maps_of(self, rgb, zoom)

    monkeypatch.setattr(Craft, "maps", counted)
    line, square, high = (40, 100, 200, 120), (20, 20, 60, 60), (240, 20, 300, 140)
    clip = clip_of(picture(line), picture(high), picture(line, square, high), picture(high), picture())
    with TextScorer(craft=str(light), side=160).open() as score:
        (row,) = score([clip]).to_pylist()
    assert looked == [(160, 320, 0.5)] * 3
    assert row["text_boxes"] == 3
    # Bars of 40 x 5, 10 x 10 and 15 x 30 px of the map, grown by twice the root of their shorter side; a px is 4 x 4.
    wanted = (39 + 4) * (4 + 4) * 16 / (160 * 320)
    assert row["text_area_first"] == pytest.approx(wanted, rel=0.05)
    assert row["text_area_middle"] == pytest.approx(
        wanted + ((9 + 6) ** 2 + (14 + 7) * (29 + 7)) * 16 / (160 * 320), rel=0.05
    )
    assert (row["text_area_last"], row["text_area"]) == (0, row["text_area_middle"])
    boxes = [np.reshape(quad["corners"], (4, 2)) * (320, 160) for quad in row["text_quads"]]
    assert len(boxes) == 4
    assert boxes[0].mean(0) == pytest.approx((120, 110), abs=3)
    assert union_area(boxes[1:], 160, 320) == pytest.approx(row["text_area_middle"], rel=0.01)


def test_the_file_is_in_the_fingerprint_and_the_default_stays_as_it_was(light: Path, tmp_path: Path) -> None:
    def table(scorer: Any) -> str:
        steps = [
            {"observe": {"observers": ["change"]}},
            {"cut": {"detector": "content"}},
            {"score": {"scorer": scorer}},
        ]
        return parse_recipe({"name": "a", "steps": steps}).tables()["text"]

    copy = tmp_path / "copy.pth"
    copy.write_bytes(light.read_bytes())
    spec = TextScorer(craft=str(light))
    assert spec.weights() == TextScorer(craft=str(copy)).weights() != TextScorer().weights()
    assert len({table("text"), table({"text": {"craft": str(light)}})}) == 2
    assert table("text") == table({"text": {"craft": None, "gpus": 0}})
    assert (spec.requires, TextScorer().requires) == (("safetensors", "torch"), ("rapidocr",))
    assert pickle.loads(pickle.dumps(spec)) == spec
    (state,) = weights_of("text", spec)
    assert (state.key, state.place, state.here) == ("text.craft", "file", True)
    assert weights_of("text", TextScorer()) == []
    with pytest.raises(ValueError, match="gpus=1: RapidOCR's detector runs on the CPU; give craft too"):
        TextScorer(gpus=1)
    assert TextScorer(craft=str(light), gpus=0.5).resources.gpus == 0.5


def test_svd_takes_craft_by_one_set(light: Path) -> None:
    recipe = load_recipe("svd", [f"text.craft={light}"])
    assert next(step for step in recipe.steps if step.name == "text").spec == TextScorer(craft=str(light))


class Runs:
    """A pickle that would call something."""

    def __reduce__(self) -> Any:
        return (print, ("code ran",))


def test_what_is_no_craft_is_refused_before_work(
    light: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    with pytest.raises(
        RecipeError, match=r"text: craft='.*weights': no file of weights; give a file with CRAFT's \(\.pth"
    ):
        load_recipe("svd", [f"text.craft={tmp_path}/weights"])
    with pytest.raises(
        UsageError, match=r"craft='.*none.pth': no such file; give a file with CRAFT's weights, such as"
    ):
        TextScorer(craft=str(tmp_path / "none.pth")).check()
    whole = torch.load(light, weights_only=True)
    name = "module.conv_cls.8.weight"
    wrong = {
        "lacks conv_cls.8.weight": {key: tensor for key, tensor in whole.items() if key != name},
        "has the unknown conv_cls.9.weight and 1 more": {**whole, "conv_cls.9.weight": whole[name], "x": whole[name]},
        r"conv_cls.8.weight is \(3, 16, 1, 1\), not \(2, 16, 1, 1\)": {**whole, name: torch.zeros(3, 16, 1, 1)},
        "not a state dict": [1],
        "no weights that can be read": {**whole, "x": Runs()},
    }
    for number, (said, content) in enumerate(wrong.items()):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        for refuse in (
            TextScorer(craft=str(path)).check,
            TextScorer(craft=str(path)).weights,
            lambda p=path: Craft(str(p)),
        ):
            with pytest.raises(UsageError, match=f"craft='.*{number}.pth': .*{said}"):
                refuse()
        path.unlink()
    assert "code ran" not in capsys.readouterr().out


def test_safetensors_and_plain_names_will_do(light: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    plain = {name.removeprefix("module."): tensor for name, tensor in torch.load(light, weights_only=True).items()}
    save_file(plain, tmp_path / "craft.safetensors")
    rgb = picture((40, 100, 200, 120))
    first, second = (Craft(str(path)).maps(rgb, 0.5) for path in (light, tmp_path / "craft.safetensors"))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
