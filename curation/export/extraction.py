"""Clips of an export are extracted from their sources into files of their own, with a row group per clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import export_schema, schema, video
from dailies.curation.addresses import address_of, name_of, scrub
from dailies.curation.clips import span_of
from dailies.curation.errors import SourceError, item_error
from dailies.curation.types import Crop
from dailies.curation.video.encode import Encoding, ExtractedClip
from dailies.curation.video.extract import Extractor, Mode
from dailies.curation.video.soundtrack import Audio, ClipSound


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """Settings by which clips are extracted from their sources.

    ``mode``: one of ``dailies.curation.video.extract``; ``encoding``: of what is encoded; ``crop``: whether measured black
    borders are taken off; ``min_seconds``: that what a copy leaves of a clip must have, as all clips have; ``audio``: whether
    clips keep their sound.
    """

    mode: Mode = "encode"
    encoding: Encoding = field(default_factory=Encoding)
    crop: bool = False
    min_seconds: float = 0.0
    audio: Audio = "drop"

    @property
    def meaning(self) -> list[Any]:
        """The settings that an export's bytes depend on, for its fingerprint."""
        least = [self.min_seconds] if self.mode == "copy" else []
        sound = ["audio", ClipSound.meaning] if self.audio == "keep" and self.mode != "none" else []
        return [self.mode, asdict(self.encoding), self.encoding.meaning, self.crop, *least, *sound]

    @property
    def fingerprint(self) -> str:
        """``meaning``, short: two exports of one fingerprint hold the same bytes of the same clip."""
        return schema.fingerprint(self.meaning)


EXTRACTED = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("failure", schema.FAILURE),
        *(
            column
            for column in export_schema.EXPORT_COLUMNS
            if column.name in {*export_schema.EXTRACTION_COLUMNS, *export_schema.AUDIO_COLUMNS}
        ),
        export_schema.VIDEO,
    ]
)
"""One clip as it was extracted, or why it could not be."""


class _ClipExtractor:
    """Extracts clips, in a child process; the source last opened stays open, since its next clip comes next."""

    def __init__(self) -> None:
        self._extractor: Extractor | None = None
        self._source: tuple[str, str, int] | None = None  # address, content id and stream that the extractor is open on

    def __call__(
        self, clip: Mapping[str, Any], settings: ExtractSettings, heartbeat: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Return ``EXTRACTION_COLUMNS`` and ``AUDIO_COLUMNS`` of ``export_schema``, and the bytes of one clip.

        A source in which faults showed is encoded, whatever the mode but ``none``: copies would take the faults along.
        Raises ``SourceError``; ``Changed`` if the source is not what was observed.
        """
        extractor = self._opened(clip, heartbeat)
        mode: Mode = "encode" if clip.get("faulty") and settings.mode != "none" else settings.mode
        crop = crop_of(clip) if settings.crop else None
        extracted = extractor.extract(
            span_of(clip),
            mode,
            encoding=settings.encoding,
            crop=crop,
            audio=settings.audio,
            expect=clip["frames"],
            size=(clip["width"], clip["height"]),
            least=Fraction(settings.min_seconds).limit_denominator(1000),
            heartbeat=heartbeat,
        )
        return extraction_row(clip, extracted, mode, crop or Crop()) | {"video": extracted.data}

    def _opened(self, clip: Mapping[str, Any], heartbeat: Callable[[], None]) -> Extractor:
        address = address_of(clip)
        source = (address, clip["content_id"], clip["stream"])
        if self._extractor is None or self._source != source:
            if self._extractor is not None:
                self._extractor.close()
                self._extractor = None
            video.check_content(address, clip["content_id"])
            heartbeat()
            self._extractor, self._source = Extractor(address, stream=clip["stream"]), source
        return self._extractor


extract_clip = _ClipExtractor()


def crop_of(clip: Mapping[str, Any]) -> Crop:
    """Return the measured black borders as what to take off; nothing at a side where they could not be told."""
    return Crop(**{side: math.ceil(clip.get(f"border_{side}") or 0) for side in ("left", "top", "right", "bottom")})


def extraction_row(clip: Mapping[str, Any], extracted: ExtractedClip, mode: Mode, crop: Crop) -> dict[str, Any]:
    """Return ``export_schema.EXTRACTION_COLUMNS`` and ``AUDIO_COLUMNS`` of one clip; ``mode`` is what was asked for."""
    if extracted.encoded == extracted.frames:
        mode = "encode"
    elif mode == "smart" and not extracted.encoded:
        mode = "copy"
    sound = dict.fromkeys(export_schema.AUDIO_COLUMNS) if mode == "none" else audio_row(extracted.sound)
    return {
        **sound,
        "extraction": mode,
        "source_start": extracted.span.start,
        "source_end": extracted.span.end,
        "lost_seconds": float(span_of(clip).seconds - extracted.span.seconds),
        "seconds": float(extracted.span.seconds),
        "frames": extracted.frames,
        "frames_encoded": extracted.encoded,
        "encoder": extracted.encoder,
        "fps": extracted.fps,
        "width": extracted.width,
        "height": extracted.height,
        "crop_left": crop.left,
        "crop_top": crop.top,
        "crop_right": crop.right,
        "crop_bottom": crop.bottom,
    }


def audio_row(sound: ClipSound) -> dict[str, Any]:
    """Return ``export_schema.AUDIO_COLUMNS`` of one clip."""
    return {
        "audio": sound.audio,
        "audio_codec": sound.codec,
        "audio_stream": sound.stream,
        "audio_rate": sound.rate,
        "audio_channels": sound.channels,
        "audio_missing": sound.missing,
    }


def write_extracted(
    path: Any,
    clips: Iterable[Mapping[str, Any]],
    extract: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    private_sources: bool = False,
) -> int:
    """Extract ``clips`` into the local path or open file ``path``, a row group each, in order; return how many failed.

    Reasons name a source as the export does, and not at all with ``private_sources``.
    """
    failed = 0
    with pq.ParquetWriter(path, EXTRACTED, compression="none", write_statistics=False) as writer:
        for clip in clips:
            row: dict[str, Any] = dict.fromkeys(EXTRACTED.names) | {"clip_id": clip["clip_id"]}
            try:
                table = pa.Table.from_pylist([{**row, **extract(clip)}], schema=EXTRACTED)
            except Exception as error:
                row["failure"] = failure_of(item_error(error), clip, private_sources=private_sources)
                failed += 1
                table = pa.Table.from_pylist([row], schema=EXTRACTED)
            writer.write_table(table)
    return failed


def failure_of(
    error: SourceError, clip: Mapping[str, Any] | None = None, *, private_sources: bool = False
) -> dict[str, str]:
    """Return the reason of a failed clip, as a row keeps it; ``clip``: with the place where its source lies."""
    message = str(error)
    if private_sources:
        message = f"its source: {error.kind}; what was wrong is not told, since sources are private"
    elif clip is not None and clip.get("uri"):
        message = scrub(message, address_of(clip)).replace(clip["uri"], name_of(clip["uri"]))
    return {"stage": "export", "kind": error.kind, "message": message}


def read_extracted(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``EXTRACTED`` as ``write_shard`` needs it. Raises the failure that the row records."""
    failure = row["failure"]
    if failure is not None:
        error = SourceError(failure["message"])
        error.kind = failure["kind"]
        raise error
    return {name: row[name] for name in EXTRACTED.names if name not in ("clip_id", "failure")}
