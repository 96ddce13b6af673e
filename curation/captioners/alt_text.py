"""Alt-text: a column of the manifest as a caption, such as what a page says beside a video. Nothing is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation.captioners.captions import COLUMNS, Caption, caption_table
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.plain_text import one_line
from dailies.curation.types import Evidence, Resources


@dataclass(frozen=True, kw_only=True, config=SPEC)
class AltTextCaptioner:
    """What the manifest says of a clip's source, or of the span that it is; empty where it says nothing.

    Args:
        column: the manifest's.
    """

    column: Annotated[str, Field(min_length=1)] = "text"

    identity: ClassVar[str] = "curation.captioners.alt_text.AltText"
    meaning: ClassVar[int] = 1
    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"manifest.{self.column}",)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            return caption_table([self._clip(clip) for clip in evidence])

        yield caption

    def _clip(self, clip: Evidence) -> Caption:
        (name,) = self.needs
        value = clip.columns[name]
        text = "" if value is None else one_line(value)
        if not text:
            error = SourceError(f"{name} is empty")
            return Caption(text=None, tokens=None, status="empty", error=error, model="alt_text")
        return Caption(text=text, tokens=len(text.split()), model="alt_text")
