"""Scorers: models over evidence, one file a model. ``SCORERS`` names them all.

A scorer is a small picklable spec on the driver, a dataclass whose fields are its parameters; what ``open()`` returns is heavy
and lives in a worker. A new one is one file and one line in ``SCORERS``: its columns, the recipe's checks and the contract
tests follow. A field's metadata may say ``meaning: False`` (its value changes no number), ``formerly: NAME`` (recipes may
still call it that, and fingerprints always do) or ``later: True`` (it came after tables had names: at its default no
fingerprint has it).

A scorer that needs columns of earlier steps alone sets ``needs_frames`` to false, and no evidence is read for it. Columns of
lists, such as embeddings, never lie on the driver: workers read them from the parts of the step that made them. One that
asks for several clips at a time says by ``bundle`` how many a worker is handed at least, if there are as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from dailies.curation.scorers.aesthetic import AestheticScorer
from dailies.curation.scorers.ask import AskEndpointScorer, AskScorer
from dailies.curation.scorers.brisque import BrisqueScorer
from dailies.curation.scorers.caption_quality import CaptionQualityScorer
from dailies.curation.scorers.classify import ClassifyScorer
from dailies.curation.scorers.clip import ClipScorer
from dailies.curation.scorers.embed import EmbedScorer
from dailies.curation.scorers.raft import RaftScorer
from dailies.curation.scorers.safety import SafetyScorer
from dailies.curation.scorers.stored import ReadsEmbeddings
from dailies.curation.scorers.technical import TechnicalScorer
from dailies.curation.scorers.text import TextScorer
from dailies.curation.types import Evidence, Resources

__all__ = [
    "SCORERS",
    "AestheticScorer",
    "AskEndpointScorer",
    "AskScorer",
    "BrisqueScorer",
    "CaptionQualityScorer",
    "ClassifyScorer",
    "ClipScorer",
    "EmbedScorer",
    "RaftScorer",
    "ReadsEmbeddings",
    "SafetyScorer",
    "Scorer",
    "TechnicalScorer",
    "TextScorer",
    "encoders",
    "openclip",
    "openclip_activation",
    "openclip_folder",
    "safety",
]


class Scorer(Protocol):
    """A model over evidence; scores are columns, decisions are made in ``select``."""

    identity: ClassVar[str]  # names it in fingerprints for good, wherever its class moves
    meaning: ClassVar[int]  # raised when the code changes what the numbers mean
    columns: ClassVar[tuple[pa.Field, ...]]  # with units
    requires: ClassVar[tuple[str, ...]]  # importable names of the packages it needs; a property where parameters decide
    models: ClassVar[tuple[str, ...]]  # those of its parameters that may name a model of the zoo, as zoo:NAME

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of earlier steps it reads, e.g. a caption; a class variable where they are always the same."""

    @property
    def resources(self) -> Resources: ...

    def weights(self) -> str | None:
        """Return sha256 or pinned revision of the weights; part of the fingerprint."""

    def open(self) -> AbstractContextManager[Callable[[Sequence[Evidence]], pa.Table]]:
        """Load the model. The call takes evidence of n clips and returns n rows of ``columns``, in order.

        Raises ``SourceError`` for evidence it cannot read. Whatever it raises, the stage finds the bad clip by itself and
        makes it a row with the reason; only what is no clip's fault, such as a full disk, ends the run.
        """


SCORERS: dict[str, Any] = {
    "aesthetic": AestheticScorer,
    "ask": AskScorer,
    "ask_endpoint": AskEndpointScorer,
    "classify": ClassifyScorer,
    "brisque": BrisqueScorer,
    "caption_quality": CaptionQualityScorer,
    "clip": ClipScorer,
    "embed": EmbedScorer,
    "raft": RaftScorer,
    "safety": SafetyScorer,
    "technical": TechnicalScorer,
    "text": TextScorer,
}
