"""Captions by a vision-language model that vLLM runs on the GPUs of a Ray cluster, in batches offline.

**Not run by us**: see ``dailies.curation.chat.vllm_chat``, and docs/captions.md.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from dailies.curation.captioners.describe import Describe
from dailies.curation.chat import VllmChat
from dailies.curation.config import SPEC


@dataclass(frozen=True, kw_only=True, config=SPEC)
class VllmCaptioner(Describe, VllmChat):
    """A caption of each clip's frames, by vLLM on a Ray cluster.

    The parameters are those of ``dailies.curation.captioners.describe`` and ``dailies.curation.chat.vllm_chat``.
    """

    identity: ClassVar[str] = "curation.captioners.vllm.Vllm"
    meaning: ClassVar[int] = 1
