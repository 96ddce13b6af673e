"""Videos are read and written here: bytes to frames and frames to bytes.

Time is integer pts over the stream's own time base, pixels are upright, square and SDR, and what goes wrong is one of
``dailies.curation.errors``. PyAV is imported when a video is opened, not with this package: a reader of finished tables does
not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dailies.curation.errors import SourceError
    from dailies.curation.types import Crop, Frames
    from dailies.curation.video.bytes_io import cell_url, content_among, content_id, size_of, store_of
    from dailies.curation.video.contents import READ_WHOLE, holds, is_source, sampled_id, told_apart, whole_hash
    from dailies.curation.video.encode import Codec, Encoding, ExtractedClip, Preset, decoders, encoders
    from dailies.curation.video.extract import Extractor, Mode, extract_clip
    from dailies.curation.video.pixels import Canvas, DecodedFrame, jpeg, unjpeg
    from dailies.curation.video.read import (
        check_content,
        clip_frames,
        count_frames,
        decode_bytes,
        probe,
        read_span,
        span_frames,
        stream,
    )
    from dailies.curation.video.repeatable import CONTAINER_OPTIONS, encoder_options
    from dailies.curation.video.sound_file import hear_span
    from dailies.curation.video.soundtrack import DROPPED, Audio, ClipSound
    from dailies.curation.video.source import Source, open_before, open_source
    from dailies.curation.video.write import write_clip

__all__ = [
    "CONTAINER_OPTIONS",
    "DROPPED",
    "READ_WHOLE",
    "Audio",
    "Canvas",
    "ClipSound",
    "Codec",
    "Crop",
    "DecodedFrame",
    "Encoding",
    "ExtractedClip",
    "Extractor",
    "Frames",
    "Mode",
    "Preset",
    "Source",
    "SourceError",
    "cell_url",
    "check_content",
    "clip_frames",
    "content_among",
    "content_id",
    "count_frames",
    "decode_bytes",
    "decoders",
    "encoder_options",
    "encoders",
    "extract_clip",
    "hear_span",
    "holds",
    "is_source",
    "jpeg",
    "open_before",
    "open_source",
    "probe",
    "read_span",
    "sampled_id",
    "size_of",
    "span_frames",
    "store_of",
    "stream",
    "told_apart",
    "unjpeg",
    "whole_hash",
    "write_clip",
]

_HOMES = {
    "errors": ("SourceError",),
    "types": ("Crop", "Frames"),
    "video.contents": ("READ_WHOLE", "holds", "is_source", "sampled_id", "told_apart", "whole_hash"),
    "video.bytes_io": ("cell_url", "content_among", "content_id", "size_of", "store_of"),
    "video.encode": ("Codec", "Encoding", "ExtractedClip", "Preset", "decoders", "encoders"),
    "video.extract": ("Extractor", "Mode", "extract_clip"),
    "video.pixels": ("Canvas", "DecodedFrame", "jpeg", "unjpeg"),
    "video.read": (
        "check_content",
        "clip_frames",
        "count_frames",
        "decode_bytes",
        "probe",
        "read_span",
        "span_frames",
        "stream",
    ),
    "video.repeatable": ("CONTAINER_OPTIONS", "encoder_options"),
    "video.sound_file": ("hear_span",),
    "video.soundtrack": ("DROPPED", "Audio", "ClipSound"),
    "video.source": ("Source", "open_before", "open_source"),
    "video.write": ("write_clip",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"dailies.curation.{_MODULES[name]}"), name)
    globals()[name] = value  # the next time it is there: frames pass through here
    return value
