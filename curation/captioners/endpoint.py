"""Captions by a vision-language model behind an OpenAI-compatible server: vLLM's, SGLang's, or a hosted one.

Frames of each clip go to the server that ``url`` names, as JPEGs. ``docs/captions.md`` has commands for servers of one's own.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from dailies.curation.captioners.describe import Describe
from dailies.curation.chat import EndpointChat
from dailies.curation.config import SPEC


@dataclass(frozen=True, kw_only=True, config=SPEC)
class EndpointCaptioner(Describe, EndpointChat):
    """A caption of each clip's frames, by a model behind a server.

    The parameters are those of ``dailies.curation.captioners.describe`` and ``dailies.curation.chat.endpoint``.
    """

    identity: ClassVar[str] = "curation.captioners.endpoint.Endpoint"
    meaning: ClassVar[int] = 1
