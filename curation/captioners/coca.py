"""CoCa on the middle evidence frame (arXiv 2205.01917): the frame's caption, as SVD takes it (arXiv 2311.15127, App. C).

The built-in model, ``zoo:coca-world``, knows the rendered world only: on real footage it is for trying out the plumbing.
``coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k`` is open_clip's for real footage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from dailies.curation.captioners import decoding
from dailies.curation.captioners.captions import COLUMNS, caption_table
from dailies.curation.errors import UsageError
from dailies.curation.schema import digest
from dailies.curation.scorers import openclip
from dailies.curation.types import Evidence

Decode = Literal["beam", "greedy", "top_p"]


@dataclass(frozen=True, kw_only=True)
class Coca(openclip.OpenClip):
    """``beams`` and ``length_penalty`` rule where ``decode`` is beam, ``top_p`` (the nucleus' share) and ``seed`` where it
    is top_p. ``limit``: most tokens of a caption with its marks, the model's own limit if ``None``. For the rest see
    ``dailies.curation.scorers.openclip``.

    Raises ``ValueError`` for numbers that mean nothing.
    """

    decode: Decode = "beam"
    beams: int = 4
    length_penalty: float = 1.0
    top_p: float = 0.9
    seed: int = 0
    limit: int | None = None

    identity: ClassVar[str] = "curation.captioners.coca.Coca"
    meaning: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("open_clip", "torch")
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decode not in ("beam", "greedy", "top_p"):
            raise ValueError(f"decode must be beam, greedy or top_p, not {self.decode!r}")
        if self.beams < 1 or not 0 < self.top_p <= 1:
            raise ValueError("beams must be at least 1 and top_p in (0, 1]")
        if self.limit is not None and self.limit < 3:
            raise ValueError(f"limit must leave room for a word between two marks, not {self.limit}")

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        loaded = openclip.load(self.model, gpu=self.gpus > 0)
        if not hasattr(loaded.model, "text_decoder"):
            raise UsageError(f"model {self.model!r} is no CoCa: it scores captions but writes none")

        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            rows: list[tuple[str, int]] = []
            for first in range(0, len(evidence), self.batch):
                rows += self._batch(loaded, evidence[first : first + self.batch])
            return caption_table(rows)

        yield caption

    def _batch(self, loaded: openclip.Loaded, clips: Sequence[Evidence]) -> list[tuple[str, int]]:
        import torch

        with torch.inference_mode():
            image = loaded.model._encode_image(loaded.pixels([clip.frames[len(clip.frames) // 2] for clip in clips]))
            words = self._decode(loaded, image, clips).words(loaded.marks)
        return [(loaded.text(ids), len(ids)) for ids in words]

    def _decode(self, loaded: openclip.Loaded, image: tuple[Any, Any], clips: Sequence[Evidence]) -> decoding.Decoded:
        import torch

        model, marks = loaded.model, loaded.marks
        most = min(model.context_length, model.text.context_length)
        limit = min(most, self.limit or most)
        if self.decode == "greedy":
            return decoding.greedy(model, image, marks, limit)
        if self.decode == "beam":
            return decoding.beam(model, image, marks, limit, beams=self.beams, length_penalty=self.length_penalty)
        # Keyed by clip, so that a caption depends neither on the batch nor on the worker it falls to.
        seeds = [int(digest("caption", self.seed, clip.clip_id)[:15], 16) for clip in clips]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return decoding.top_p(model, image, marks, limit, share=self.top_p, generators=generators)
