"""HDR becomes SDR: the standards' numbers, and files rendered from known light."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dailies.curation import video
from dailies.curation.timing import Span
from dailies.curation.video import tonemap
from dailies.curation.video.pixels import is_hdr
from tests.observed import GRAY, check_colours, check_frames, observed
from tests.rendered_video import chart, patches, render

PQ, HLG = 16, 18
COUNT = 6
# cd/m² of linear BT.709 R, G, B. Six greys; three greys brighter than white, three colours within BT.709.
GREYS = [203, 100, 50, 26, 10, 1]
LIGHT = np.array(
    [*[[level] * 3 for level in GREYS], [400] * 3, [0] * 3, [1000] * 3, [80, 20, 20], [20, 30, 80], [400, 200, 160]],
    float,
)
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087 annex 1
OF_2020 = np.array([0.2627, 0.6780, 0.0593])


# ---- the standards once more, inverse, from their own decimals ------------------------------------------------------

M1, M2, C1, C2, C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875


def pq(light: np.ndarray) -> np.ndarray:
    """cd/m² → signal."""
    power = (light / 10_000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def unpq(signal: np.ndarray) -> np.ndarray:
    power = signal ** (1 / M2)
    return 10_000 * (np.maximum(power - C1, 0) / (C2 - C3 * power)) ** (1 / M1)


def hlg(light: np.ndarray) -> np.ndarray:
    """(n, 3) cd/m² of a display of 1000 → signal: the inverse OOTF, then the OETF."""
    share = light / 1000
    luminance = (share @ OF_2020)[:, None]
    scene = share * np.where(luminance > 0, luminance, 1) ** (-0.2 / 1.2)
    logarithmic = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithmic)


def expected() -> np.ndarray:
    """(12, 3) SDR code values of ``LIGHT``: BT.2390's spline on the brightest of R, G, B of BT.2020, then BT.1886."""
    brightest = (LIGHT @ TO_2020.T).max(1)
    peak, white = pq(np.array(1000.0)), pq(np.array(203.0))
    signal, knee = pq(brightest) / peak, 1.5 * white / peak - 0.5
    t = (signal - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white / peak
    )
    rolled = unpq(np.where(signal < knee, signal, spline) * peak)
    gain = np.divide(rolled, brightest, out=np.ones(12), where=brightest > 0)
    return 255 * np.clip(LIGHT * gain[:, None] / 203, 0, 1) ** (1 / 2.4)


# ---- files ----------------------------------------------------------------------------------------------------------

X265: dict[str, Any] = {"codec": "libx265", "options": {"crf": "2", "x265-params": "log-level=none:keyint=6"}}
TEN: dict[str, Any] = {"pix_fmt": "yuv420p10le", "tags": (1, 9)}
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "hevc": ("mp4", {**X265, **TEN}),
    "hevc-ts": ("ts", {**X265, **TEN}),
    "hevc-444-12": ("mkv", {**X265, "pix_fmt": "yuv444p12le", "tags": (1, 9)}),
    "hevc-full-range": ("mkv", {**X265, "pix_fmt": "yuv420p10le", "tags": (2, 9)}),
    "av1": ("mkv", {"codec": "libsvtav1", "options": {"crf": "4", "preset": "10"}, **TEN}),
    "h264": ("mp4", {"options": {"crf": "2"}, **TEN}),
    "prores": ("mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "tags": (1, 9)}),
    "ffv1-rgb": ("mkv", {"codec": "ffv1", "pix_fmt": "gbrp16le"}),
}


def lit(path: Path, transfer: int, **settings: Any) -> list[int]:
    signal = (pq if transfer == PQ else hlg)(LIGHT @ TO_2020.T)
    codes = np.rint(signal * 65535).astype(np.uint16)
    pts = list(range(COUNT))

    def picture(index: int, width: int, height: int) -> np.ndarray:
        return chart(index, width, height, codes)

    return render(path, pts=pts, time_base=Fraction(1, 25), light=(9, transfer), picture=picture, **settings)


@pytest.mark.parametrize("transfer", [PQ, HLG], ids=["pq", "hlg"])
@pytest.mark.parametrize("name", FILES)
def test_hdr_files_give_sdr_pictures_of_the_same_light(name: str, transfer: int, tmp_path: Path) -> None:
    suffix, settings = FILES[name]
    path = tmp_path / f"{name}.{suffix}"
    lit(path, transfer, **settings)
    row = observed(path)
    check_frames(path, row, [Fraction(index, 25) for index in range(COUNT)])
    check_colours(path, row, expected())
    assert row["probe"]["hdr"]
    with video.open_source(str(path)) as source:
        picture = next(source.frames())
        rgb, gray = patches(picture.rgb()), patches(picture.planes(GRAY))
    assert np.ptp(rgb[:9], axis=1).max() <= 5  # greys stay grey
    assert np.abs(gray - expected() @ [0.2126, 0.7152, 0.0722]).max() <= 5


def test_a_gray_hdr_file_has_the_same_greys(tmp_path: Path) -> None:
    def picture(index: int, width: int, height: int) -> np.ndarray:
        signal = 16 + 219 * np.clip(pq(LIGHT), 0, 1)  # gray is not brought to limited range by swscale
        return chart(index, width, height, np.rint(signal / 255 * 65535).astype(np.uint16))

    path = tmp_path / "gray.mkv"
    settings = {**X265, "pix_fmt": "gray10le", "tags": (1, 9), "light": (9, PQ)}
    render(path, pts=[0, 1], time_base=Fraction(1, 25), picture=picture, **settings)
    with video.open_source(str(path)) as source:
        first = next(source.frames())
        assert first.frame.format.name == "gray10le"
        assert np.abs(patches(first.rgb())[:9] - expected()[:9]).max() <= 5
        assert np.abs(patches(first.planes(GRAY))[:9] - expected()[:9, 0]).max() <= 5


def test_eight_bits_of_hlg_are_hdr_and_ten_bits_of_bt2020_are_not(tmp_path: Path) -> None:
    vp9 = {"codec": "libvpx-vp9", "options": {"crf": "4", "deadline": "realtime"}, "tags": (1, 9)}
    lit(tmp_path / "hlg.webm", HLG, **vp9)
    row = observed(tmp_path / "hlg.webm")
    assert (row["probe"]["hdr"], row["probe"]["pixel_format"]) == (True, "yuv420p")
    check_colours(tmp_path / "hlg.webm", row, expected())
    settings = {"pts": [0, 1], "time_base": Fraction(1, 25), "picture": chart, "light": (9, 14)}
    render(tmp_path / "sdr.mkv", **settings, **X265, **TEN)
    row = observed(tmp_path / "sdr.mkv")
    assert not row["probe"]["hdr"]
    check_colours(tmp_path / "sdr.mkv", row)


def test_a_clip_cut_out_of_hdr_is_sdr_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "hdr.mp4"
    lit(path, PQ, **X265, **TEN)
    span = Span(start=0, end=10**6, time_base=video.probe(str(path)).time_base)
    cut = video.extract_clip(str(path), span, encoding=video.Encoding(crf=4))
    assert cut.data is not None
    with av.open(io.BytesIO(cut.data)) as container:
        frame = next(container.decode(video=0))
        assert not is_hdr(frame)
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
    assert np.abs(patches(video.decode_bytes(cut.data).pixels[0]) - expected()).max() <= 5


# ---- functions ------------------------------------------------------------------------------------------------------


def test_reference_white_is_where_bt2408_puts_it() -> None:
    """Table 1 of BT.2408: 203 cd/m² is 58 % of PQ and 75 % of HLG; its SDR level, by BT.2390's spline, is near 90 %."""
    assert tonemap.pq_inverse_eotf(np.array(203.0)) == pytest.approx(0.58, abs=0.005)
    assert 1000 * tonemap.hlg_inverse_oetf(np.array(0.75)) ** 1.2 == pytest.approx(203, abs=1)
    for transfer, signal in ((tonemap.PQ, 0.5807), (tonemap.HLG, 0.75)):
        code = np.full((1, 1, 3), round(signal * 65535), np.uint16)
        assert tonemap.sdr_rgb(code, transfer, 9) == pytest.approx(0.905 * 255, abs=2)


def test_pq_goes_there_and_back() -> None:
    light = np.geomspace(0.001, 10_000, 200)
    assert tonemap.pq_eotf(tonemap.pq_inverse_eotf(light)) == pytest.approx(light)
    assert tonemap.pq_eotf(np.array([0.0, 1.0])) == pytest.approx([0, 10_000])


def test_light_below_the_knee_stays_and_highlights_rise_to_the_peak() -> None:
    light = np.linspace(0, 1000, 2001)
    rolled = tonemap.roll_off(light)
    assert np.allclose(rolled[light < 88], light[light < 88])
    assert (np.diff(rolled[:-1]) > 0).all()
    assert rolled[-1] == pytest.approx(203)
    assert tonemap.roll_off(np.array([4000.0])) == pytest.approx(203)


def test_the_matrix_is_bt2087s_and_keeps_white() -> None:
    assert np.linalg.inv(tonemap.to_bt709(9)) == pytest.approx(TO_2020, abs=6e-5)
    for primaries in (1, 2, 9, 12):
        assert tonemap.to_bt709(primaries) @ np.ones(3) == pytest.approx(np.ones(3))
    assert tonemap.to_bt709(1) == pytest.approx(np.eye(3))


@pytest.mark.parametrize("transfer", [tonemap.PQ, tonemap.HLG])
def test_brighter_is_never_darker_and_grey_stays_grey(transfer: int) -> None:
    codes = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = tonemap.sdr_rgb(np.repeat(codes[..., None], 3, axis=2), transfer, 9).astype(int)
    assert (np.diff(rgb[..., 1].ravel()) >= 0).all()
    assert (rgb.min(), rgb.max()) == (0, 255)
    assert np.ptp(rgb, axis=2).max() <= 1


def test_colours_beyond_bt709_are_clipped_and_highlights_keep_their_hue() -> None:
    def codes(light: list[float]) -> np.ndarray:
        return np.rint(pq(np.array([[light]])) * 65535).astype(np.uint16)

    assert tonemap.sdr_rgb(codes([0, 80, 0]), tonemap.PQ, 9)[0, 0].tolist()[::2] == [0, 0]
    bright = tonemap.sdr_rgb(codes([800, 400, 200]), tonemap.PQ, 1)[0, 0] / 255
    assert bright**2.4 / bright[0] ** 2.4 == pytest.approx([1, 0.5, 0.25], abs=0.01)
