"""A video-language model on a clip's frames, as SVD takes one (arXiv 2311.15127, App. C): any of transformers, on this machine.

InstructBLIP-Video (VideoBLIP's kin), LLaVA-NeXT-Video, Qwen2.5-VL and Qwen3-VL are looked at by one adapter,
``dailies.curation.chat.transformers_chat``; docs/captions.md has commands, and what memory each takes.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from dailies.curation.captioners.describe import Describe
from dailies.curation.chat import TransformersChat
from dailies.curation.config import SPEC


@dataclass(frozen=True, kw_only=True, config=SPEC)
class VideoCaptioner(Describe, TransformersChat):
    """A caption of each clip by a model that looks at its frames as a video.

    By itself it is ``zoo:video-world``, which knows the rendered world only.

    The parameters are those of ``dailies.curation.captioners.describe`` and ``dailies.curation.chat.transformers_chat``.
    """

    model: str = "zoo:video-world"

    identity: ClassVar[str] = "curation.captioners.video.Video"
    meaning: ClassVar[int] = 1
