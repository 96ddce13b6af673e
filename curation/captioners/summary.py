"""Summaries: a language model merges a clip's captions, on this machine, behind a server, or by vLLM.

By itself it is SmolLM2-135M, which needs no hub, merges simple captions, and of many others makes nothing that passes:
docs/captions.md says of how many.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from dailies.curation.captioners.merge import Merge
from dailies.curation.chat import EndpointChat, TransformersChat, VllmChat, smollm2
from dailies.curation.config import SPEC


@dataclass(frozen=True, kw_only=True, config=SPEC)
class SummaryCaptioner(Merge, TransformersChat):
    """Captions merged by a language model of transformers.

    The parameters are those of ``dailies.curation.captioners.merge`` and ``dailies.curation.chat.transformers_chat``.
    """

    model: str = smollm2.NAME

    identity: ClassVar[str] = "curation.captioners.summary.Summary"
    meaning: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True, config=SPEC)
class EndpointSummary(Merge, EndpointChat):
    """Captions merged by a language model behind a server.

    The parameters are those of ``dailies.curation.captioners.merge`` and ``dailies.curation.chat.endpoint``.
    """

    identity: ClassVar[str] = "curation.captioners.summary.EndpointSummary"
    meaning: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True, config=SPEC)
class VllmSummary(Merge, VllmChat):
    """Captions merged by vLLM on a Ray cluster. **Not run by us**: see ``dailies.curation.chat.vllm_chat``.

    The parameters are those of ``dailies.curation.captioners.merge`` and ``dailies.curation.chat.vllm_chat``.
    """

    identity: ClassVar[str] = "curation.captioners.summary.VllmSummary"
    meaning: ClassVar[int] = 1
