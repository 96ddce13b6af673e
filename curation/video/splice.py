"""Coded pictures of two encoders are joined in one stream: what mode smart encodes at the ends, and copies between.

A decoder can go from one encoder's pictures to another's where the second begin with one that needs nothing before it
and brings its own parameter sets: an IDR picture of H.264, an IDR or CRA picture of HEVC, a key frame of AV1 or VP9.
Codecs of keyframes alone need no joint. Whatever else is left to ``dailies.curation.video.encode``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from dailies.curation.errors import NotCopied
from dailies.curation.timing import Span
from dailies.curation.video import nal
from dailies.curation.video.bytes_io import one_line
from dailies.curation.video.encode import Encoding, hush
from dailies.curation.video.nal import Packing
from dailies.curation.video.pixels import DecodedFrame
from dailies.curation.video.remux import Coded, codec_of
from dailies.curation.video.repeatable import encoder_options

ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9"}
TAGS = {"h264": "avc3", "hevc": "hev1"}  # ISO/IEC 14496-15: parameter sets may stand among the pictures
INTRA = frozenset({"mjpeg", "prores", "ffv1", "dnxhd", "png"})
SEQUENCE_HEADER = 1  # obu_type, AV1 6.2.2


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Joins encoded pictures before and behind those of one stream.

    ``encoder``: libav's name, ``None`` where none is needed; ``tag``: the name of the codec in a joined file.
    """

    codec: str
    encoder: str | None
    tag: str | None
    packing: Packing | None
    header: bytes
    like: Any  # a decoded frame, whose size, format and colours those that are encoded have

    @classmethod
    def of(cls, stream: Any, frame: Any) -> Joint:
        """Make the joint of ``stream``, with a decoded ``frame`` of it. Raises ``NotCopied`` where nothing can be joined."""
        codec = codec_of(stream)
        if codec not in ENCODERS and codec not in INTRA:
            raise NotCopied(f"pictures of {codec} cannot be joined to others")
        if frame.interlaced_frame and codec in ENCODERS:
            raise NotCopied("it is interlaced")
        header = bytes(stream.codec_context.extradata or b"")
        try:
            packing = Packing.of(codec, header) if codec in TAGS else None
        except ValueError as error:
            raise NotCopied(str(error)) from error
        return cls(
            codec=codec, encoder=ENCODERS.get(codec), tag=TAGS.get(codec), packing=packing, header=header, like=frame
        )

    def starts(self, packet: Any) -> bool:
        """Tell whether a decoder begins anew at this keyframe."""
        return self.packing is None or nal.starting(self.codec, self._units(packet)) is not None

    def _units(self, packet: Any) -> list[bytes]:
        assert self.packing is not None
        try:
            return nal.split(bytes(packet), self.packing.length)
        except ValueError as error:
            raise NotCopied(str(error)) from error

    def joined(self, packets: Sequence[Any], *, behind: bool) -> list[Coded]:
        """Return ``packets`` as they are, but for the first where it stands ``behind`` pictures of another encoder."""
        coded = [Coded(packet=packet, pts=packet.pts) for packet in packets]
        if behind:
            coded[0] = Coded(packet=self._opening(packets[0]), pts=packets[0].pts)
        return coded

    def _opening(self, packet: Any) -> Any:
        """Return the stretch's first packet, with the parameter sets that its header holds in front."""
        if self.packing is not None:
            units = nal.starting(self.codec, self._units(packet))
            assert units is not None
            return _packet(nal.join([*self.packing.sets, *units], self.packing.length))
        if self.codec == "av1" and not _has_sequence_header(bytes(packet)):
            return _packet(self.header[4:] + bytes(packet))  # av1C: four bytes, then the OBUs
        return packet

    # ---- encoding ----

    def encode(self, pictures: Iterable[DecodedFrame], span: Span, encoding: Encoding) -> list[Coded]:
        """Encode the frames of ``span`` in the stream's own codec, in the order shown, the first a keyframe.

        Raises ``NotCopied``.
        """
        import av

        if self.encoder is None:
            raise NotCopied(f"there is no encoder to join {self.codec} with")
        context, packets = None, []
        try:
            for picture in pictures:
                if (picture.frame.width, picture.frame.height, picture.frame.format.name) != self._format:
                    raise NotCopied("its pictures change size or format")
                context = context or self._open(span, encoding)
                packets += context.encode(_bare(picture.frame, picture.pts, span.time_base))
            packets += context.encode(None) if context else []
        except (av.FFmpegError, ValueError) as error:
            raise NotCopied(f"{self.encoder} does not take its pictures: {one_line(error)}") from error
        if any(packet.pts is None for packet in packets):
            raise NotCopied(f"{self.encoder} lost the time of a picture")
        return [Coded(packet=self._packed(packet), pts=packet.pts) for packet in packets if packet.size]

    @property
    def _format(self) -> tuple[int, int, str]:
        return self.like.width, self.like.height, self.like.format.name

    def _open(self, span: Span, encoding: Encoding) -> Any:
        import av

        assert self.encoder is not None  # as its caller has seen
        context: Any = av.CodecContext.create(self.encoder, "w")
        context.width, context.height, context.pix_fmt = self._format
        context.time_base = span.time_base
        context.framerate = Fraction(25)  # for rate control: times are the pictures' own
        context.color_range, context.colorspace = self.like.color_range, self.like.colorspace
        context.color_primaries, context.color_trc = self.like.color_primaries, self.like.color_trc
        context.options = encoder_options(self.encoder, _options(self.codec, encoding))
        return context

    def _packed(self, packet: Any) -> Any:
        if self.packing is None:
            return packet
        packed = _packet(nal.join(nal.split(bytes(packet), 0), self.packing.length))
        packed.is_keyframe = packet.is_keyframe
        return packed


def _options(codec: str, encoding: Encoding) -> dict[str, str]:
    """Return options for pictures in the order shown, each referring to earlier ones."""
    crf, preset = str(encoding.crf), encoding.preset
    if codec == "h264":
        return {"crf": crf, "preset": preset, "x264-params": "bframes=0:keyint=infinite:annexb=1"}
    if codec == "hevc":
        still = "bframes=0:keyint=-1:open-gop=0:repeat-headers=1"
        return {"crf": crf, "preset": preset, "x265-params": still}
    if codec == "av1":
        hush()
        return {"crf": str(min(63, encoding.crf * 5 // 4)), "preset": "8", "svtav1-params": "pred-struct=1"}
    return {"crf": crf, "b": "0", "deadline": "good", "cpu-used": "4", "lag-in-frames": "0"}


def _bare(frame: Any, pts: int, time_base: Fraction) -> Any:
    """Copy a frame's pixels: the decoder's own frame would carry its frame types and side data into the encoder."""
    import av

    new: Any = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, new.planes, strict=True):
        rows = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in (source, target)]
        width = min(row.shape[1] for row in rows)
        rows[1][:, :width] = rows[0][:, :width]
    new.pts, new.time_base = pts, time_base
    new.color_range, new.colorspace = frame.color_range, frame.colorspace
    new.color_primaries, new.color_trc = frame.color_primaries, frame.color_trc
    return new


def _packet(data: bytes) -> Any:
    import av

    packet = av.Packet(data)
    packet.is_keyframe = True
    return packet


def _has_sequence_header(data: bytes) -> bool:
    """Tell whether a temporal unit begins with a sequence header, after at most a temporal delimiter (AV1 5.3)."""
    at = 0
    for _ in range(2):
        if at >= len(data):
            return False
        if data[at] >> 3 & 15 == SEQUENCE_HEADER:
            return True
        at += 2  # a temporal delimiter: its header and its size, 0
    return False
