"""CoCa on the middle evidence frame (arXiv 2205.01917): the frame's caption, as SVD takes it (arXiv 2311.15127, App. C).

The built-in model, ``zoo:coca-world``, knows the rendered world only: on real footage it is for trying out the plumbing.
``coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k`` is open_clip's for real footage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation.captioners import decoding
from dailies.curation.captioners.captions import COLUMNS, Caption, Status, caption_table, seed_of
from dailies.curation.config import SPEC
from dailies.curation.errors import UsageError
from dailies.curation.model_folders import model_name
from dailies.curation.scorers import openclip
from dailies.curation.scorers.encoders import batches_ahead
from dailies.curation.types import Evidence, EvidenceFrame

THREADS = 4  # that make frames ready while a GPU looks at those before; beside a CPU, more than one would be in its way

Decode = Literal["beam", "greedy", "top_p"]


@dataclass(frozen=True, kw_only=True, config=SPEC)
class CocaCaptioner(openclip.OpenClip):
    """A caption of a frame of each clip, by default its middle one.

    Args:
        decode: how the caption is searched for.
        beams: sequences kept at each step, for beam.
        length_penalty: power of the length that a sequence's log-probability is divided by, for beam.
        top_p: share of the probability that the nucleus holds, for top_p.
        seed: of what is drawn, for top_p and a random frame.
        max_tokens: most tokens of a caption with its start and end, the model's own limit if ``None``.
        frame: which is captioned, the middle one or a random one, drawn for each clip.

    The others are those of ``dailies.curation.scorers.openclip``.
    """

    decode: Decode = "beam"
    beams: Annotated[int, Field(ge=1)] = 4
    length_penalty: float = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    seed: int = 0
    max_tokens: Annotated[int, Field(ge=3)] | None = field(default=None, metadata={"formerly": "limit"})
    frame: Literal["middle", "random"] = field(default="middle", metadata={"later": True})

    identity: ClassVar[str] = "curation.captioners.coca.Coca"
    meaning: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("open_clip", "torch", "transformers")
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS
    needs: ClassVar[tuple[str, ...]] = ("content_id", "stream")

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        loaded = openclip.load(self.model, gpu=self.gpus > 0)
        if not hasattr(loaded.model, "text_decoder"):
            raise UsageError(f"model={self.model!r}: not a CoCa, so it cannot write captions; name a model coca_…")

        model, revision = model_name(self.model), self.weights()

        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            captions: list[Caption] = []
            frames = [self._frame(clip) for clip in evidence]
            for pictures in batches_ahead(frames, loaded.ready, self.batch, pool):
                clips = evidence[len(captions) :][: len(pictures)]
                for text, tokens, whole in self._batch(loaded, pictures, clips):
                    status: Status = "empty" if not text else "ok" if whole else "truncated"
                    written = Caption(
                        text=text or None, tokens=tokens or None, status=status, model=model, revision=revision
                    )
                    captions.append(written)
            return caption_table(captions)

        with ThreadPoolExecutor(THREADS if self.gpus else 1) as pool:
            yield caption

    def _frame(self, clip: Evidence) -> EvidenceFrame:
        middle = self.frame == "middle"
        return clip.frames[len(clip.frames) // 2 if middle else seed_of(self.seed, clip, self.needs) % len(clip.frames)]

    def _batch(
        self, loaded: openclip.Loaded, pictures: Sequence[Any], clips: Sequence[Evidence]
    ) -> list[tuple[str, int, bool]]:
        """Return each clip's caption, its tokens, and whether it ends by itself. ``pictures``: ready for the model."""
        import torch

        with torch.inference_mode():
            image = loaded.model._encode_image(torch.stack(list(pictures)).to(loaded.device))
            decoded = self._decode(loaded, image, clips)
        whole = (decoded.ids_BL == loaded.special_tokens.end).any(1).tolist()
        captions = decoded.without(loaded.special_tokens)
        return [(loaded.text(ids), len(ids), ended) for ids, ended in zip(captions, whole, strict=True)]

    def _decode(self, loaded: openclip.Loaded, image: tuple[Any, Any], clips: Sequence[Evidence]) -> decoding.Decoded:
        import torch

        model, special = loaded.model, loaded.special_tokens
        longest = min(model.context_length, model.text.context_length)
        max_tokens = min(longest, self.max_tokens or longest)
        if self.decode == "greedy":
            return decoding.greedy(model, image, special, max_tokens)
        if self.decode == "beam":
            return decoding.beam(
                model, image, special, max_tokens, beams=self.beams, length_penalty=self.length_penalty
            )
        generators = [torch.Generator().manual_seed(seed_of(self.seed, clip, self.needs)) for clip in clips]
        return decoding.top_p(model, image, special, max_tokens, share=self.top_p, generators=generators)
