"""NAL units of H.264 and HEVC are split, repacked and told apart here, as joining pictures of two encoders needs.

Bytes only; nothing is decoded. ITU-T H.264 and H.265: Annex B (start codes), 7.3.1 and 7.4.2 (types), Annex D (SEI);
ISO/IEC 14496-15: avcC and hvcC (length prefixes, parameter sets).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

START = b"\x00\x00\x00\x01"
_START = re.compile(rb"\x00\x00\x01")
H264_IDR, H264_SETS = 5, (7, 8)  # SPS, PPS
HEVC_CRA, HEVC_BLA, HEVC_SETS = 21, 18, (32, 33, 34)  # BLA: without leading pictures; VPS, SPS, PPS
HEVC_STARTS = range(16, 21)  # BLA and IDR: a decoder begins anew at them
SEI = {"h264": (6, 1), "hevc": (39, 2)}  # nal_unit_type of messages before a picture, and bytes of a unit's header
DISPLAY_ORIENTATION = 47  # payloadType
LEAD = 1 << 16  # bytes of a packet in which its messages stand, before the picture itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """A stream's way of packing NAL units.

    ``length``: bytes of the length before each, 0 for start codes; ``sets``: the header's parameter sets, in order.
    """

    length: int
    sets: tuple[bytes, ...]

    @classmethod
    def of(cls, codec: str, extradata: bytes) -> Packing:
        """Read it from the header of codec ``h264`` or ``hevc``. Raises ``ValueError`` for a header that is cut short."""
        if not extradata or extradata[:3] == b"\x00\x00\x01" or extradata[:4] == START:
            return cls(length=0, sets=tuple(split(extradata, 0)))
        try:
            return _avcc(extradata) if codec == "h264" else _hvcc(extradata)
        except IndexError as error:
            raise ValueError("its codec header is cut short") from error


def _avcc(data: bytes) -> Packing:
    """Parse avcC, ISO/IEC 14496-15, 5.3.3.1."""
    sets, at = [], 6
    for count in (data[5] & 31, None):
        if count is None:
            count, at = data[at], at + 1
        for _ in range(count):
            size = _number(data, at, 2)
            sets.append(data[at + 2 : at + 2 + size])
            at += 2 + size
    return Packing(length=(data[4] & 3) + 1, sets=tuple(sets))


def _hvcc(data: bytes) -> Packing:
    """Parse hvcC, ISO/IEC 14496-15, 8.3.3.1."""
    sets, at = [], 23
    for _ in range(data[22]):
        count, at = _number(data, at + 1, 2), at + 3
        for _ in range(count):
            size = _number(data, at, 2)
            sets.append(data[at + 2 : at + 2 + size])
            at += 2 + size
    return Packing(length=(data[21] & 3) + 1, sets=tuple(unit for unit in sets if kind("hevc", unit) in HEVC_SETS))


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size], "big")


def split(data: bytes, length: int) -> list[bytes]:
    """Split one packet into bare NAL units. Raises ``ValueError`` where lengths do not add up."""
    if not length:
        marks = [match.start() for match in _START.finditer(data)]
        return [data[a + 3 : b].rstrip(b"\x00") for a, b in zip(marks, [*marks[1:], len(data)], strict=True)]
    units, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + length], "big")
        if at + length + size > len(data):
            raise ValueError("a packet's lengths do not add up")
        units.append(data[at + length : at + length + size])
        at += length + size
    return units


def join(units: Sequence[bytes], length: int) -> bytes:
    """Pack NAL units as one packet."""
    return b"".join((len(unit).to_bytes(length, "big") if length else START) + unit for unit in units)


def kind(codec: str, unit: bytes) -> int:
    """Return the unit's nal_unit_type."""
    return -1 if not unit else unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


def starting(codec: str, units: Sequence[bytes]) -> list[bytes] | None:
    """Return the packet's units so that a decoder begins anew at them, ``None`` if it cannot.

    An IDR picture does. An HEVC decoder also does at a CRA picture marked as BLA, which is what the standard has them
    for (H.265, 7.4.2.2); the pictures shown before it must be left out.
    """
    kinds = [kind(codec, unit) for unit in units]
    if codec == "h264":
        return list(units) if H264_IDR in kinds else None
    if HEVC_CRA in kinds:
        return [
            bytes([unit[0] & 0x81 | HEVC_BLA << 1]) + unit[1:] if number == HEVC_CRA else unit
            for number, unit in zip(kinds, units, strict=True)
        ]
    return list(units) if any(number in HEVC_STARTS for number in kinds) else None


def states_turn(codec: str, data: bytes, length: int) -> bool:
    """Tell whether a packet says by a message of its own that its picture is to be turned or mirrored.

    ``length``: see ``Packing``. A message that takes a turn back says as much as none.
    """
    number, header = SEI[codec]
    try:
        units = split(data if length else data[:LEAD], length)
    except ValueError:
        return False  # damaged: decoding it will tell
    messages = (_messages(unit[header:]) for unit in units if kind(codec, unit) == number)
    return any(type_ == DISPLAY_ORIENTATION and _turns(payload) for unit in messages for type_, payload in unit)


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    """Return (payloadType, payload) of each message in a unit of SEI, H.264 7.3.2.3.1."""
    data = data.replace(b"\x00\x00\x03", b"\x00\x00")  # bytes that keep start codes out
    messages, at = [], 0
    while at + 2 < len(data):
        head = []
        for _ in range(2):
            value = 0
            while at < len(data) and data[at] == 255:
                value, at = value + 255, at + 1
            value, at = value + (data[at] if at < len(data) else 0), at + 1
            head.append(value)
        messages.append((head[0], data[at : at + head[1]]))
        at += head[1]
    return messages


def _turns(payload: bytes) -> bool:
    """Tell whether a display orientation holds and is not upright, H.264 D.1.27: cancel flag, two flips, 16 bits of angle."""
    bits = int.from_bytes(payload[:3], "big")
    return len(payload) >= 3 and not bits >> 23 and bits >> 5 & 0x3FFFF != 0
