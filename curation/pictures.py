"""One picture as people see it: upright, 8-bit RGB, over a stated ground. What cannot be read has a reason.

Training and the zoo open pictures here alike. Pillow is imported when a picture is opened, and says which formats there
are: HEIC needs a plugin of Pillow that is registered.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.curation.errors import NoVideo, Truncated, Unreadable, machine_raised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

GROUND = (255, 255, 255)
"""What shows through where a picture is transparent: white, as on a page."""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "HEIC", "JPEG2000", "PPM")
"""Formats that are opened, whatever a file is called: of the others that Pillow knows, one starts Ghostscript (EPS), and most
are read by nobody."""

MOST_PIXELS = 89_000_000
"""A picture of more is refused before it is decoded: in RGB it takes 267 MB. Pillow warns from about there on."""

# What Pillow raises on damaged files, format by format.
_BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(NotImplementedError, RuntimeError, struct.error, zlib.error),
)


def opened(data: bytes | Path) -> Any:
    """Open a picture with Pillow, not decoded yet: one of ``FORMATS``, of at most ``MOST_PIXELS``.

    Raises ``Unreadable`` for a larger one, and what Pillow does.
    """
    from PIL import Image

    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    picture = Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=known)
    width, height = picture.size
    if width * height > MOST_PIXELS:
        picture.close()
        raise Unreadable(f"{width}x{height} px are more than {MOST_PIXELS:,}; scale the picture down")
    return picture


def open_picture(data: bytes | Path | None) -> Pixels:
    """Return a picture's bytes, or a file's, as uint8 RGB (H, W, 3); of an animation the first frame.

    It is turned as its EXIF orientation says and lies over ``GROUND`` where it is transparent. 16 bits become 8 by
    division by 257, floats of 0–1 by multiplication with 255.

    Raises ``NoVideo`` for no bytes at all, ``Truncated`` for a file that ends too early, ``Unreadable`` for what is no
    picture, has over ``MOST_PIXELS`` or numbers of unknown range, and ``FileNotFoundError``. What is no picture's fault,
    such as a lack of memory, stays what it is.
    """
    from PIL import Image, UnidentifiedImageError

    if data is None or data == b"":
        raise NoVideo("holds no picture")
    try:
        with opened(data) as picture:
            picture.load()
            return _upright(_rgb(picture), picture)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("no picture in a format that Pillow reads here") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"more than {MOST_PIXELS:,} px; scale the picture down") from error
    except _BROKEN as error:
        machine_raised(error)
        kind = Truncated if "truncated" in str(error).lower() else Unreadable
        raise kind(f"{type(error).__name__}: {error}") from error


def _rgb(picture: Any) -> Pixels:
    """Return the pixels as they are stored, uint8 RGB."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture).astype(np.float64)
        gray = _gray(values, picture.mode)
        hidden = picture.info.get("transparency")  # of a PNG: the one value that is transparent
        ground = np.array(GROUND, np.uint8)
        clear = values == hidden if isinstance(hidden, int) else np.zeros(values.shape, bool)
        return np.where(clear[..., None], ground, gray[..., None])
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, (*GROUND, 255)), over)
    return np.array(picture.convert("RGB"))


def _gray(values: NDArray[np.float64], mode: str) -> Pixels:
    """Return 16-bit grays, and floats of 0–1, as 8 bits."""
    import numpy as np

    most = 1.0 if mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= most):  # NaN is in no range either
        what = "floats outside 0–1" if mode == "F" else "integers of more than 16 bits"
        raise Unreadable(f"its gray values are {what}, whose black and white are unknown; save it in 8 or 16 bits")
    gray: Pixels = np.rint(values * (255 / most)).astype(np.uint8)
    return gray


def _upright(pixels: Pixels, picture: Any) -> Pixels:
    """Turn and mirror pixels as the EXIF orientation, 1–8, says."""
    import numpy as np
    from PIL import ExifTags

    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
