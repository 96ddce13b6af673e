"""A model's size is read from the headers of its safetensors files: no library is needed and no weight is read."""

from __future__ import annotations

import math
from pathlib import Path

from dailies.curation.config import read_object
from dailies.curation.errors import Damaged
from dailies.curation.litter import without_litter

MAX_HEADER = 100 << 20
"""Bytes; safetensors' own limit."""


def header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return tensor name → (dtype, shape). Raises ``Damaged`` for a file that is not safetensors.

    The format: 8 bytes, little-endian, with the length of a JSON object that follows.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            rows = read_object(stream.read(length), f"{path}:", Damaged)
        return {name: (row["dtype"], tuple(row["shape"])) for name, row in rows.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is not safetensors: {error}") from error


def size(folder: Path) -> tuple[int, int]:
    """Return (parameters, bytes) of the safetensors files under ``folder``."""
    files = list(without_litter(folder, "**/*.safetensors"))
    parameters = sum(math.prod(shape) for path in files for _, shape in header(path).values())
    return parameters, sum(path.stat().st_size for path in files)


def parts(folder: Path) -> dict[str, tuple[int, int]]:
    """Return (parameters, bytes) of each component's folder that holds weights, in alphabetical order."""
    sizes_of = {path.name: size(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return {name: sizes for name, sizes in sizes_of.items() if sizes[1]}
