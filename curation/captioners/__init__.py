"""Captioners: text for a clip. One file a captioner; this table names them all.

A captioner is a scorer whose columns are fixed: ``text`` and ``tokens``. What NAME writes is known to later steps as
``caption_NAME``, so that one captioner can read another's, as ``fuse`` does.
"""

from __future__ import annotations

from typing import Any

from dailies.curation.captioners.captions import COLUMNS
from dailies.curation.captioners.coca import Coca
from dailies.curation.captioners.fuse import Fuse
from dailies.curation.captioners.motion import Motion
from dailies.curation.scorers import Scorer

# The same protocol, with ``COLUMNS`` for its columns.
Captioner = Scorer

CAPTIONERS: dict[str, Any] = {
    "coca": Coca,
    "motion": Motion,
    "fuse": Fuse,
}

__all__ = ["CAPTIONERS", "COLUMNS", "Captioner"]
