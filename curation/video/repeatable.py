"""Encoders and containers are set here so that the same frames and settings give the same bytes, on any number of cores.

Three things stood in the way. x264's macroblock tree on processors with AVX-512 gives other numbers from call to call at
some widths, 320 px among them (seen with its core 165; not without AVX-512, nor without the tree), so x264 is held to AVX2,
which takes a sixth more of its time and gives what SSE4.2 gives. x265 writes another stream where it has threads to share
rows among, which it takes from the number of cores. Matroska's ids are drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

PARAMETERS = {
    "libx264": "x264-params",
    "libx264rgb": "x264-params",
    "libx265": "x265-params",
    "libsvtav1": "svtav1-params",
}  # libav's option that passes NAME=VALUE:… to the encoder itself
AVX2, AVX512 = 11, 13  # OpenCV's CV_CPU_AVX2 and CV_CPU_AVX_512F, which its Python module does not name
CONTAINER_OPTIONS = {"fflags": "+bitexact"}
"""libav's options of a file that is written: ids are counted, and libav's version is not noted."""


def encoder_options(encoder: str, options: Mapping[str, str], *, threads: int = 1) -> dict[str, str]:
    """Return libav's ``options`` of a software encoder with what makes bytes depend on ``threads`` alone, not on the machine.

    What ``options`` say themselves holds.
    """
    own = {
        "x264-params": "asm=AVX2" if has_avx512() else "",
        "x265-params": f"log-level=none:frame-threads=1:pools={threads if threads > 1 else 'none'}",
        "svtav1-params": f"lp={threads}",
    }
    name = PARAMETERS.get(encoder)
    ours = {"threads": str(threads)}
    if name is not None and (joined := ":".join(filter(None, (own[name], options.get(name, ""))))):
        ours[name] = joined
    return ours | {key: value for key, value in options.items() if key != name}


@lru_cache
def has_avx512() -> bool:
    """Tell whether x264 would use AVX-512 here. It takes AVX2 at its word, so that is asked for only where there is more."""
    import cv2

    return all(map(cv2.checkHardwareSupport, (AVX2, AVX512)))
