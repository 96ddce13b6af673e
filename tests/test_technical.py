"""Technical scores of pictures whose truth is known: blurred, noisy, gray, black, compressed."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.observers.artifacts import blockiness, noise
from dailies.curation.scorers.brisque import _files, _load, features, fitted
from dailies.curation.scorers.technical import TechnicalScorer, colourfulness, measured, sharpness
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg, unjpeg

DOWN, ACROSS = np.mgrid[:360, :640]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A frame of the world, 640 x 360, RGB."""
    script = world.write_script(3, shots=1, size=(640, 360), shot_frames=(2, 2), flashes=0)
    return np.array(next(iter(world.frames(script))))


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def test_blur_lowers_sharpness_step_by_step_and_contrast_does_not(picture: np.ndarray) -> None:
    gray = luma(picture)
    blurred = [gray, *(cv2.GaussianBlur(gray, (0, 0), sigma) for sigma in (0.7, 1.0, 1.5, 2.5, 4.0))]
    assert all(before > after + 0.01 for before, after in pairwise(sharpness(each) for each in blurred))
    faint = (gray // 2 + 64).astype(np.uint8)
    assert sharpness(faint) == pytest.approx(
        sharpness(gray), abs=0.05
    )  # the variance of a Laplacian falls to a quarter
    assert sharpness(np.full((90, 160), 128, np.uint8)) == 0
    # Blurred in one direction alone, as by a pan, it is blurred too.
    assert sharpness(cv2.blur(gray, (15, 1))) < sharpness(gray) - 0.1


def test_colourfulness_is_none_in_gray_and_the_papers_number_in_colour(picture: np.ndarray) -> None:
    assert colourfulness(np.repeat(luma(picture)[..., None], 3, 2)) == pytest.approx(0, abs=1e-4)
    halves = np.zeros((100, 100, 3), np.uint8)
    halves[:, :50], halves[:, 50:] = (200, 0, 0), (0, 0, 200)
    # rg: 200 and 0, yb: 100 and -200; means 100 and -50, deviations 100 and 150.
    assert colourfulness(halves) == pytest.approx(np.hypot(100, 150) + 0.3 * np.hypot(100, 50), rel=1e-5)


def test_black_exposure_and_contrast_are_shares_and_deviations() -> None:
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[:, 100:150], rgb[:, 150:] = 128, 255
    of = measured(rgb)
    assert of["black_share"] == pytest.approx(0.5)
    assert of["exposure"] == pytest.approx(0.25)
    assert of["contrast"] == pytest.approx(np.std([0, 0, 128, 255]), abs=0.1)


def test_a_clip_has_the_mean_of_three_frames_and_the_most_black() -> None:
    frames = [np.full((96, 96, 3), value, np.uint8) for value in (128, 0, 0, 128)]
    frames[2][:, :48] = 128  # the middle one: half black
    clip = Evidence(
        clip_id="a",
        span=Span(start=0, end=9, time_base=Fraction(1)),
        frames=tuple(EvidenceFrame(pts=number, jpeg=jpeg(rgb, 95)) for number, rgb in enumerate(frames)),
    )
    with TechnicalScorer().open() as score:
        (row,) = score([clip]).to_pylist()
    assert row["black_share"] == pytest.approx(0.5, abs=0.01)
    assert row["exposure"] == pytest.approx((1 + 0.5 + 1) / 3, abs=0.01)


@pytest.mark.parametrize("sigma", [2.0, 4.0, 8.0, 16.0])
def test_noise_is_what_was_added(picture: np.ndarray, sigma: float) -> None:
    """On a plain ground, on the world's textures, and beside black bars, which hold none."""
    rng = np.random.default_rng(1)
    clean = cv2.GaussianBlur(luma(picture), (0, 0), 1.5)
    added = rng.normal(0, sigma, clean.shape)
    noisy = np.clip(np.round(clean + added), 0, 255).astype(np.uint8)
    assert noise(noisy) == pytest.approx(sigma, rel=0.15)
    plain = np.clip(np.round(128 + added), 0, 255).astype(np.uint8)
    assert noise(plain) == pytest.approx(sigma, rel=0.05)
    barred = noisy.copy()
    barred[:110] = barred[-110:] = 0
    assert noise(barred) == pytest.approx(sigma, rel=0.15)


def test_noise_of_what_has_none() -> None:
    assert noise((ACROSS * 255 // 640).astype(np.uint8)) == pytest.approx(0, abs=0.3)
    checked = ((ACROSS // 40 + DOWN // 40) % 2 * 160 + 40).astype(np.uint8)
    assert noise(checked) == pytest.approx(0, abs=0.1)  # the mean over the picture would be 3
    assert np.isnan(noise(np.zeros((96, 96), np.uint8)))
    assert np.isnan(noise(np.full((8, 400), 99, np.uint8)))


def test_worse_compression_has_more_blocks_wherever_their_grid_lies(picture: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    grainy = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    none = blockiness(luma(grainy))
    found = [blockiness(luma(unjpeg(jpeg(grainy, quality)))) for quality in (90, 50, 25, 10)]
    assert none < 0.3
    assert all(before < after for before, after in pairwise(found[1:]))
    assert found[-1] > 1.5 > found[0]
    shifted = luma(unjpeg(jpeg(grainy, 10)))[5:, 3:]
    assert blockiness(shifted) == pytest.approx(found[-1], rel=0.1)


def test_windows_of_a_house_are_no_blocks() -> None:
    """A few straight edges that happen to lie on the grid; excludes the mean over the lines of a phase."""
    house = np.full((360, 640), 90, np.uint8)
    house[80:240, 160:480] = 190
    assert blockiness(house) == 0


# ---- BRISQUE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (1.0, 0.7, 0.7), (1.4, 0.5, 1.5)])
def test_a_generalised_gaussian_is_found_again(shape: float, left: float, right: float) -> None:
    """Drawn from the density itself: of |x| to the power of the shape, gamma distributed; sides as often as they are wide."""
    rng = np.random.default_rng(4)
    scale = np.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    sizes = rng.gamma(1 / shape, size=400_000) ** (1 / shape) * scale
    negative = rng.random(len(sizes)) < left / (left + right)
    found = fitted(np.where(negative, -left * sizes, right * sizes))
    assert found == pytest.approx((shape, left, right), rel=0.04)


def test_brisque_reads_the_packages_weights_and_ranks_distortions(picture: np.ndarray) -> None:
    pytest.importorskip("libsvm", reason="needs the extra quality")
    from libsvm import svmutil

    regression = _load()
    rng = np.random.default_rng(3)
    point = rng.uniform(-0.8, 0.8, 36)
    theirs, _ = svmutil.gen_svm_nodearray(point.tolist(), isKernel=False)
    machine = svmutil.svm_load_model(str(_files()[0]))
    raw = (point + 1) / 2 * (regression.high_36 - regression.low_36) + regression.low_36
    assert regression(raw) == pytest.approx(svmutil.libsvm.svm_predict(machine, theirs), abs=1e-6)

    natural = cv2.GaussianBlur(rng.normal(0, 60, (384, 683, 3)), (0, 0), 1.2) * 2 + cv2.resize(picture, (683, 384))
    natural = np.clip(natural, 0, 255).astype(np.uint8)
    of = {quality: regression(features(unjpeg(jpeg(natural, quality)))) for quality in (95, 20, 5)}
    assert of[95] < of[20] < of[5]
