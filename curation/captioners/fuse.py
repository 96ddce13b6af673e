"""Fuse: what a frame shows and how the clip moves, in one sentence. A merge without a model: the same words, always.

SVD lets a language model merge a frame's caption and a clip's (arXiv 2311.15127, App. C); where there is none, a comma does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from dailies.curation.captioners.captions import COLUMNS, Caption, caption_table
from dailies.curation.chat.wording import WORD
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.types import Evidence, Resources


@dataclass(frozen=True, kw_only=True, config=SPEC)
class FuseCaptioner:
    """Two captions as one sentence.

    Args:
        scene: the column with what a frame shows.
        motion: the column with how the clip moves.
    """

    scene: str = "caption_coca"
    motion: str = "caption_motion"

    identity: ClassVar[str] = "curation.captioners.fuse.Fuse"
    meaning: ClassVar[int] = 1
    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.scene, self.motion)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            return caption_table([self._clip(clip) for clip in evidence])

        yield caption

    def _clip(self, clip: Evidence) -> Caption:
        scene, motion = clip.columns[self.scene], clip.columns[self.motion]
        if not scene or not WORD.search(scene):
            error = SourceError(f"{self.scene} is empty: there is no caption to add motion to")
            return Caption(text=None, tokens=None, status="failed", error=error, model="fuse")
        text = fuse(scene, motion)
        return Caption(text=text, tokens=len(text.split()), model="fuse")


def fuse(scene: str, motion: str | None) -> str:
    """Return "a red circle over a grey background" and "slow motion" as one sentence, without a full stop.

    Motion words that the scene's caption already ends in are not said again; without any, the scene is all there is.
    """
    scene = " ".join(scene.split()).rstrip(" .,;")
    motion = " ".join((motion or "").split()).strip(" .,;")
    if not WORD.search(motion) or scene.lower().endswith(motion.lower()):
        return scene
    return f"{scene}, {motion}"
