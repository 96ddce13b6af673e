"""Pictures are opened as people see them, by training and the zoo alike; what cannot be read has a reason."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dailies.curation.errors import (
    DailiesError,
    NoVideo,
    Outage,
    OutOfMemory,
    SourceError,
    Truncated,
    Unreadable,
    item_error,
)
from dailies.curation.pictures import GROUND, MOST_PIXELS, open_picture

CORNERS = np.zeros((24, 32, 3), np.uint8)
CORNERS[:12, :16], CORNERS[:12, 16:], CORNERS[12:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)  # the last one is black


def encoded(picture: Image.Image, kind: str = "png", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def colours(pixels: np.ndarray) -> list[str]:
    """Of the corners: upper left, upper right, lower left, lower right."""
    names = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue", (0, 0, 0): "black"}
    return [names[tuple(int(v) for v in pixels[y, x])] for y in (0, -1) for x in (0, -1)]  # type: ignore[index]


# What EXIF 2.3 says of each orientation: where the stored upper left corner is seen, and so on.
UPRIGHT = {
    1: ["red", "green", "blue", "black"],
    2: ["green", "red", "black", "blue"],
    3: ["black", "blue", "green", "red"],
    4: ["blue", "black", "red", "green"],
    5: ["red", "blue", "green", "black"],
    6: ["blue", "red", "black", "green"],
    7: ["black", "green", "blue", "red"],
    8: ["green", "black", "red", "blue"],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(CORNERS), exif=exif)
    pixels = open_picture(data)
    assert pixels.shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))
    assert colours(pixels) == UPRIGHT[orientation]
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(open_picture(tmp_path / "a.png"), pixels)


def test_sixteen_bits_are_divided_by_257() -> None:
    values = np.array([[0, 257, 128 * 257, 254 * 257, 65535]] * 2, np.uint16)
    assert open_picture(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 254, 255]
    assert open_picture(encoded(Image.fromarray(values), "tiff"))[0, :, 2].tolist() == [0, 1, 128, 254, 255]
    wide = encoded(Image.fromarray(np.array([[0, 70_000]], np.int32)), "tiff")
    with pytest.raises(Unreadable, match="more than 16 bits"):
        open_picture(wide)


def test_floats_are_read_where_their_range_is_known() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert open_picture(encoded(Image.fromarray(values), "tiff"))[0, :, 1].tolist() == [0, 128, 255]
    for wrong in (255.0, -0.1, np.nan):
        with pytest.raises(Unreadable, match="floats outside 0–1"):
            open_picture(encoded(Image.fromarray(values + np.float32(wrong)), "tiff"))


def transparent(mode: str) -> bytes:
    """A red left half; the right half is clear, over green that must not be seen."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4], rgba[:, 4:] = (255, 0, 0, 255), (0, 255, 0, 0)
    if mode == "RGBA":
        return encoded(Image.fromarray(rgba))
    if mode == "P":
        picture = Image.fromarray(rgba[..., :3]).quantize(2)
        return encoded(picture, transparency=picture.getpixel((7, 0)))
    if mode == "RGB":  # one colour is said to be clear
        return encoded(Image.fromarray(rgba[..., :3].copy()), transparency=(0, 255, 0))
    gray = np.where(rgba[..., 3:] > 0, 76, 150).astype(np.uint8)
    if mode == "I;16":
        return encoded(Image.fromarray(gray[..., 0].astype(np.uint16) * 257), transparency=150 * 257)
    return encoded(Image.fromarray(np.concatenate([gray, rgba[..., 3:]], 2)))  # LA


@pytest.mark.parametrize("mode", ["RGBA", "P", "RGB", "LA", "I;16"])
def test_what_is_transparent_shows_the_ground(mode: str) -> None:
    pixels = open_picture(transparent(mode))
    assert (pixels[:, 4:] == GROUND).all()
    assert pixels[:, :4].reshape(-1, 3).tolist() == [[255, 0, 0] if mode in ("RGBA", "P", "RGB") else [76, 76, 76]] * 32


def test_what_is_half_transparent_is_half_ground() -> None:
    half = np.full((4, 4, 4), (0, 0, 0, 128), np.uint8)
    assert open_picture(encoded(Image.fromarray(half)))[0, 0].tolist() == [127, 127, 127]


def test_other_colours_become_rgb() -> None:
    cmyk = Image.fromarray(np.full((16, 16, 4), (0, 255, 255, 0), np.uint8), "CMYK")
    assert np.abs(open_picture(encoded(cmyk, "jpeg", quality=98)).astype(int) - (255, 0, 0)).max() < 12
    bits = Image.fromarray(np.array([[True, False]]))
    assert open_picture(encoded(bits)).tolist() == [[[255] * 3, [0] * 3]]
    frames = [Image.fromarray(np.full((8, 8, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 0, 255))]
    animated = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert open_picture(animated)[0, 0].tolist() == [255, 0, 0]


def test_a_picture_that_cannot_be_read_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "jpeg")
    wrong: list[tuple[bytes | None, type[SourceError], str]] = [
        (None, NoVideo, "holds no picture"),
        (b"", NoVideo, "holds no picture"),
        (b"not a picture", Unreadable, "no picture in a format"),
        (whole[: len(whole) // 2], Truncated, "truncated"),
    ]
    for data, error, words in wrong:
        with pytest.raises(error, match=words):
            open_picture(data)
    monkeypatch.setattr("dailies.curation.pictures.MOST_PIXELS", 64 * 64 - 1)
    with pytest.raises(Unreadable, match="64x64 px are more than"):
        open_picture(whole)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemory),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), Outage),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), Outage),
    ],
)
def test_what_is_no_fault_of_a_picture_ends_the_run(
    error: Exception, kind: type[DailiesError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any, **__: Any) -> None:
        raise error

    picture = encoded(Image.new("RGB", (8, 8)))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lacking)
    with pytest.raises(type(error)) as caught:
        open_picture(picture)
    assert caught.value is error
    with pytest.raises(kind):
        item_error(error)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """A PNG of 20,000 x 20,000 px takes 50 MB to decode even as bits; its header alone is enough to refuse it."""
    bits = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bits) < MOST_PIXELS // 1000
    with pytest.raises(Unreadable, match="px"):
        open_picture(bits[:60])


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "tiff", "webp", "bmp"])
def test_damage_is_always_a_source_error(kind: str) -> None:
    """Bytes are cut and changed at random; each file is read, or refused by an error of the tree."""
    rng = np.random.default_rng(3)
    whole = encoded(Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)), kind)
    reasons = []
    for _ in range(150):
        data = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
        for at in rng.integers(0, len(data), 3):
            data[at] = int(rng.integers(256))
        try:
            open_picture(bytes(data))
        except SourceError as error:
            reasons.append(str(error))
    assert len(reasons) > 20
    assert all(reasons)
