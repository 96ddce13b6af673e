"""Boxes of an mp4 or mov file say what libav leaves out: which pixels each of a track's sample descriptions has.

ISO/IEC 14496-12: 4.2 (boxes), 8.3.2 (tkhd), 8.5.2 (stsd), 12.1 (visual sample entries, pasp). Nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import BinaryIO

from dailies.curation.geometry import Size
from dailies.curation.video.bytes_io import InputFile

ENTRY = 78  # bytes of a visual sample entry before the boxes in it
File = BinaryIO | InputFile
Place = tuple[int, int]  # (first byte, byte after the last) of what is in a box


def described_aspects(file: File, track: int) -> Mapping[Size, Fraction] | None:
    """Return the width of a pixel over its height that a track's descriptions state for pictures of a size, as decoded.

    ``track``: its id. ``None`` where its descriptions are alike, or there are none. Sizes of which nothing is stated, or
    two things, are left out.
    """
    stated = list(_descriptions(file, track))
    if len(set(stated)) < 2:
        return None
    aspects: dict[Size, set[Fraction | None]] = {}
    for size, aspect in stated:
        aspects.setdefault(size, set()).add(aspect)
    single = {size: next(iter(several)) for size, several in aspects.items() if len(several) == 1}
    return {size: aspect for size, aspect in single.items() if aspect is not None}


def _descriptions(file: File, track: int) -> Iterator[tuple[Size, Fraction | None]]:
    """Yield the size of each of the track's sample descriptions, and the pixel aspect where it states one."""
    for moov in _inside(file, b"moov", (0, file.seek(0, 2))):
        for trak in _inside(file, b"trak", moov):
            if track not in (_track(file, tkhd) for tkhd in _inside(file, b"tkhd", trak)):
                continue
            places = [trak]
            for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
                places = [inner for place in places for inner in _inside(file, kind, place)]
            for first, end in places:
                for _, entry in _boxes(file, (first + 8, end)):  # after version, flags and count
                    width, height = _numbers(file, entry[0] + 24, 2, 2)
                    pasps = _inside(file, b"pasp", (entry[0] + ENTRY, entry[1]))
                    spacings = [_numbers(file, at, 4, 2) for at, _ in pasps]
                    yield (
                        (width, height),
                        next((Fraction(wide, high) for wide, high in spacings if wide and high), None),
                    )


def _track(file: File, tkhd: Place) -> int:
    """Return the track_ID: creation and modification time before it have 4 bytes each, or 8 in version 1."""
    version = _numbers(file, tkhd[0], 1, 1)[0]
    return _numbers(file, tkhd[0] + (20 if version else 12), 4, 1)[0]


def _inside(file: File, kind: bytes, place: Place) -> Iterator[Place]:
    """Yield the places of the boxes of a kind in another's."""
    return (inner for name, inner in _boxes(file, place) if name == kind)


def _boxes(file: File, place: Place) -> Iterator[tuple[bytes, Place]]:
    """Yield the kind of each box and the place of what is in it, up to one that is none."""
    at, end = place
    while at + 8 <= end:
        (size, name), header = _numbers(file, at, 4, 2), 8
        if size == 1:  # the size follows, in 8 bytes
            size, header = _numbers(file, at + 8, 8, 1)[0], 16
        elif size == 0:  # up to the end
            size = end - at
        if size < header:
            return
        yield name.to_bytes(4, "big"), (at + header, min(at + size, end))
        at += size


def _numbers(file: File, at: int, size: int, count: int) -> list[int]:
    """Read numbers of ``size`` bytes each; past the end of the file they are 0."""
    file.seek(at)
    data = file.read(size * count)
    return [int.from_bytes(data[n * size : (n + 1) * size], "big") for n in range(count)]
