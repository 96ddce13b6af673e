"""Captioners: text for a clip, one file a captioner. ``CAPTIONERS`` names them all.

A captioner is a scorer whose columns begin with ``COLUMNS``, by ``caption_table``. The text that NAME writes is known to later
steps as ``caption_NAME``, so that one captioner can read another's, as ``fuse`` does; ``tokens_NAME``, ``status_NAME``,
``fields_NAME`` and ``flags_NAME`` are what else rules and exports know of it.
"""

from __future__ import annotations

from typing import Any

from dailies.curation.captioners.alt_text import AltTextCaptioner
from dailies.curation.captioners.best import BestCaptioner
from dailies.curation.captioners.captions import (
    COLUMNS,
    ORIGIN,
    STATUSES,
    Caption,
    Status,
    caption_table,
)
from dailies.curation.captioners.coca import CocaCaptioner
from dailies.curation.captioners.endpoint import EndpointCaptioner
from dailies.curation.captioners.fuse import FuseCaptioner
from dailies.curation.captioners.motion import MotionCaptioner
from dailies.curation.captioners.summary import EndpointSummary, SummaryCaptioner, VllmSummary
from dailies.curation.captioners.video import VideoCaptioner
from dailies.curation.captioners.vllm import VllmCaptioner
from dailies.curation.model_folders import model_name
from dailies.curation.schema import STATE
from dailies.curation.scorers import Scorer

# The same protocol, with ``COLUMNS`` for its columns.
Captioner = Scorer

CAPTIONERS: dict[str, Any] = {
    "alt_text": AltTextCaptioner,
    "coca": CocaCaptioner,
    "endpoint": EndpointCaptioner,
    "motion": MotionCaptioner,
    "fuse": FuseCaptioner,
    "summary": SummaryCaptioner,
    "summary_endpoint": EndpointSummary,
    "summary_vllm": VllmSummary,
    "video": VideoCaptioner,
    "vllm": VllmCaptioner,
    "best": BestCaptioner,
}

__all__ = [
    "CAPTIONERS",
    "COLUMNS",
    "ORIGIN",
    "STATE",
    "STATUSES",
    "AltTextCaptioner",
    "BestCaptioner",
    "Caption",
    "Captioner",
    "CocaCaptioner",
    "EndpointCaptioner",
    "EndpointSummary",
    "FuseCaptioner",
    "MotionCaptioner",
    "Status",
    "SummaryCaptioner",
    "VideoCaptioner",
    "VllmCaptioner",
    "VllmSummary",
    "caption_table",
    "model_name",
]
