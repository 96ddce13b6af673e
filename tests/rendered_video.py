"""Rendered videos for tests: every frame says which one it is, and a chart says which colours it has."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from dailies.curation.video import nal

os.environ.setdefault("SVT_LOG", "1")  # errors only: it would tell on stderr how it was set
BITS = 6
COLOURS = np.array(
    [
        *[(255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0), (255, 0, 255), (255, 0, 0)],
        *[(0, 0, 255), (0, 0, 0), (64, 64, 64), (128, 128, 128), (191, 191, 191), (224, 128, 32)],
    ],
    np.uint8,
)  # of the chart's patches: top row, then bottom row


def numbered(index: int, width: int = 192, height: int = 108) -> np.ndarray:
    """(h, w, 3) RGB: six vertical bars spell ``index`` in binary, over a gradient that has a top and a left."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, 0 * x + 90], axis=-1).astype(np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        rgb[height // 3 : 2 * height // 3, bit * bar : (bit + 1) * bar] = 235 if index >> bit & 1 else 16
    return rgb


def chart(index: int, width: int = 192, height: int = 108, colours: np.ndarray = COLOURS) -> np.ndarray:
    """(h, w, 3): rows of flat patches above and below six bars that spell ``index``. No patch is like another."""
    low, high = (16, 235) if colours.dtype == np.uint8 else (colours[7].min(), colours[0].max())
    picture = np.empty((height, width, 3), colours.dtype)
    for place in range(6):
        column = slice(place * width // 6, (place + 1) * width // 6)
        picture[: height // 3, column] = colours[place]
        picture[height // 3 : 2 * height // 3, column] = high if index >> place & 1 else low
        picture[2 * height // 3 :, column] = colours[6 + place]
    return picture


def patches(picture: np.ndarray) -> np.ndarray:
    """(12,) or (12, 3): what an upright (h, w) or (h, w, 3) chart shows in its patches, however it was scaled."""
    height, width = picture.shape[:2]
    rows, columns = (height // 6, height * 5 // 6), [int((place + 0.5) * width / 6) for place in range(6)]
    return np.array([picture[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)) for y in rows for x in columns])


def number(gray: np.ndarray) -> int:
    """What an upright (h, w) gray frame says it is."""
    height, width = gray.shape
    bar = width / BITS
    band = gray[height * 4 // 9 : height * 5 // 9]
    return sum((band[:, int((bit + 0.3) * bar) : int((bit + 0.7) * bar)].mean() > 128) << bit for bit in range(BITS))


def render(
    path: Path,
    *,
    codec: str = "libx264",
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 600),
    size: tuple[int, int] = (192, 108),
    options: dict[str, str] | None = None,
    movflags: str | None = None,
    rotation: float | None = None,
    flip: bool = False,
    aspect: Fraction | None = None,
    audio: bool = False,
    count: int = 36,
    tags: tuple[int, int] = (0, 2),
    light: tuple[int, int] = (2, 2),
    pix_fmt: str = "yuv420p",
    flags: int = 0,
    picture: Callable[[int, int, int], np.ndarray] = numbered,
) -> list[int]:
    """Numbered frames at ``pts`` (25 per second by default) → the pts written. ``size``: as coded.

    ``tags``: AVColorRange and AVColorSpace, ``light``: AVColorPrimaries and AVColorTransferCharacteristic. ``flags``: of the
    encoder. ``picture``: from index, width and height to RGB of 8 or, HDR, of 16 bits.

    With ``rotation`` (counter-clockwise) and then ``flip`` (left to right) in the file, the frames are coded turned and
    flipped the other way: upright they are ``numbered``.
    """
    turns = round((rotation or 0) / 90)
    upright = size[::-1] if turns % 2 else size
    pts = pts or [24 * i for i in range(count)]
    options = dict(options or {})
    if codec == "libx265" and len(pts) < 3:
        # Expecting B-frames, x265 now and then stamps the second of two frames later for decoding than for showing.
        options["x265-params"] = ":".join(filter(None, (options.get("x265-params"), "bframes=0")))
    with av.open(path, "w", container_options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=25, options=options, width=size[0], height=size[1])
        stream.codec_context.time_base = time_base
        stream.pix_fmt = pix_fmt
        stream.codec_context.color_range, stream.codec_context.colorspace = tags
        stream.codec_context.color_primaries, stream.codec_context.color_trc = light
        stream.codec_context.flags |= flags
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=flip)
        sound = container.add_stream("aac", rate=48000) if audio else None
        for index, at in enumerate(pts):
            pixels = picture(index, *upright)
            pixels = np.ascontiguousarray(np.rot90(pixels[:, ::-1] if flip else pixels, -turns))
            rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.dtype == np.uint8 else "rgb48le")
            frame = rgb.reformat(format=pix_fmt, dst_color_range=tags[0] or None, dst_colorspace=tags[1])
            frame.pts, frame.time_base = at, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            silence(container, sound)
    return pts


def remuxed(
    source: Path, target: Path, change: Callable[[int, Any], Any] = lambda _number, packet: packet, **options: str
) -> Path:
    """The packets of ``source`` as ``change`` gives them back, none for ``None``, in the container of ``target``."""
    with av.open(source) as coded, av.open(target, "w", container_options=options) as container:
        stream = container.add_stream_from_template(coded.streams.video[0])
        for number, packet in enumerate(p for p in coded.demux(video=0) if p.size):
            changed = change(number, packet)
            if changed is not None:
                changed.stream = stream
                container.mux(changed)
    return target


def turning(packet: Any, codec: str, degrees: int) -> Any:
    """A packet of H.264 or HEVC with start codes whose picture says of itself by how much it is to be turned
    counter-clockwise: display orientation SEI, H.264 D.1.27 and H.265 D.2.17."""
    angle = f"000{degrees * 65536 // 360:016b}" + ("01001" if codec == "h264" else "11000")
    message = bytes([47, 3]) + int(angle, 2).to_bytes(3, "big") + b"\x80"
    header, pictures = (b"\x06", range(1, 6)) if codec == "h264" else (b"\x4e\x01", range(32))
    units = nal.split(bytes(packet), 0)
    first = next(number for number, unit in enumerate(units) if nal.kind(codec, unit) in pictures)
    turned = av.Packet(nal.join([*units[:first], header + message, *units[first:]], 0))
    turned.pts, turned.dts, turned.time_base = packet.pts, packet.dts, packet.time_base
    turned.is_keyframe = packet.is_keyframe
    return turned


BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})  # of an mp4 file, that hold boxes alone


def reboxed(data: bytes, changes: dict[bytes, Callable[[bytes], bytes]]) -> bytes:
    """Boxes of an mp4 file, with what is in those of the kinds of ``changes`` as these give it back."""
    out, at = b"", 0
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body, at = data[at + 8 : at + size], at + size
        body = reboxed(body, changes) if kind in BOXES else changes.get(kind, bytes)(body)
        out += (8 + len(body)).to_bytes(4, "big") + kind + body
    return out


def with_descriptions(path: Path, *parts: dict[str, Any], stated: bool = True) -> Path:
    """One mp4 track of parts, each of 18 frames rendered by its settings under a sample description of its own.

    ``stated``: whether these state their pixel aspect; else the size on screen alone does, which is that of the first.
    """

    def words(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(4, "big") for number in numbers)

    def described(table: bytes) -> bytes:
        entry = table[8:]
        if not stated and b"pasp" in entry:
            at = entry.index(b"pasp") - 4
            entry = words(len(entry) - 16) + entry[4:at] + entry[at + 16 :]
        entries.append(entry)
        return table

    entries: list[bytes] = []
    with av.open(path, "w") as container:
        stream: Any = None
        for number, settings in enumerate(parts):
            part = path.with_name(f"part{number}.mp4")
            options = {"x264-params": f"{GOP}:bframes=0"}
            render(part, **{"options": options, **settings}, pts=list(range(18)), time_base=Fraction(1, 25))
            reboxed(part.read_bytes(), {b"stsd": described})
            with av.open(part) as coded:
                stream = stream or container.add_stream_from_template(coded.streams.video[0])
                for index, packet in enumerate(p for p in coded.demux(video=0) if p.size):
                    packet.pts = packet.dts = 18 * number + index
                    packet.duration, packet.time_base, packet.stream = 1, Fraction(1, 25), stream
                    container.mux(packet)
    with av.open(path) as coded:
        places = [packet.pos for packet in coded.demux(video=0) if packet.size]
    chunks = [word for number in range(len(parts)) for word in (1 + 18 * number, 1, number + 1)]
    tables = {
        b"stsd": words(0, len(parts)) + b"".join(entries),
        b"stsc": words(0, len(parts), *chunks),  # a sample a chunk
        b"stco": words(0, len(places), *places),
    }
    changes = {kind: lambda _, table=table: table for kind, table in tables.items()}
    path.write_bytes(reboxed(path.read_bytes(), changes))
    return path


def silence(container: av.container.OutputContainer, sound: av.AudioStream) -> None:
    for block in range(40):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, block * 1024, Fraction(1, 48000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


GOP = "keyint=9:min-keyint=9:scenecut=0:b-adapt=0"
UNEVEN = [
    0,
    24,
    30,
    90,
    91,
    140,
    200,
    224,
    260,
    300,
    310,
    320,
    480,
    500,
    524,
    550,
    600,
    610,
    640,
    700,
    777,
    800,
    840,
    900,
]
KINDS: dict[str, tuple[str, dict]] = {
    "b-frames": ("mp4", {"options": {"x264-params": f"{GOP}:bframes=5:b-pyramid=normal"}}),
    "open-gop": ("mp4", {"options": {"x264-params": f"{GOP}:bframes=3:open-gop=1"}}),
    "open-gop-mkv": ("mkv", {"options": {"x264-params": f"{GOP}:bframes=3:open-gop=1"}, "audio": True}),
    "intra-refresh": ("mkv", {"options": {"x264-params": "keyint=12:intra-refresh=1:bframes=0"}}),
    "uneven": ("mp4", {"pts": UNEVEN, "options": {"x264-params": GOP}}),
    "late-start": ("mp4", {"pts": [600 + 24 * i for i in range(30)], "options": {"x264-params": GOP}}),
    "transport": ("ts", {"options": {"x264-params": f"{GOP}:bframes=2"}, "audio": True}),
    "fragmented": ("mp4", {"options": {"x264-params": GOP}, "movflags": "frag_keyframe+empty_moov"}),
    "odd-size": ("mp4", {"size": (321, 181), "pix_fmt": "yuv444p", "options": {"x264-params": GOP}}),
    "mpeg4-avi": ("avi", {"codec": "mpeg4", "options": {"g": "9", "bf": "2"}, "time_base": Fraction(1, 25)}),
    "raw-h264": ("h264", {"options": {"x264-params": f"{GOP}:bframes=2"}}),
    "vp9": ("webm", {"codec": "libvpx-vp9", "options": {"g": "9", "deadline": "realtime", "cpu-used": "8"}}),
    "portrait": ("mov", {"rotation": -90, "size": (108, 192), "options": {"x264-params": GOP}}),
}
