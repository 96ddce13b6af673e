"""Videos are read and written here: bytes to frames and frames to bytes.

Time is integer pts over the stream's own time base, pixels are upright, square and SDR, and what goes wrong is one of
``dailies.curation.errors``. PyAV is imported when a video is opened, not with this package: a reader of finished tables does
not need it.
"""

from dailies.curation.errors import SourceError
from dailies.curation.types import Crop, Frames
from dailies.curation.video.bytes_io import cell_url, content_among, content_id, size_of, store_of
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
from dailies.curation.video.source import Source, open_before, open_source
from dailies.curation.video.write import write_clip

__all__ = [
    "Canvas",
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
    "encoders",
    "extract_clip",
    "jpeg",
    "open_before",
    "open_source",
    "probe",
    "read_span",
    "size_of",
    "span_frames",
    "store_of",
    "stream",
    "unjpeg",
    "write_clip",
]
