"""A chat model that is none: it answers what it is told to, and keeps what it was asked. To be mixed into what asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from dailies.curation.chat import Ask, Reply
from dailies.curation.config import SPEC
from dailies.curation.types import Resources


@dataclass(frozen=True, kw_only=True, config=SPEC)
class CannedChat:
    """``replies``: values of each ``Reply``, in order of the asks. ``asked``: what was asked, of all calls."""

    replies: tuple[Any, ...] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources()
    asked: ClassVar[list[Ask]] = []

    def weights(self) -> None:
        return None

    def check(self) -> None:
        return None

    @contextmanager
    def chat(self) -> Iterator[Callable[[Sequence[Ask]], list[Reply]]]:
        def answer(asks: Sequence[Ask]) -> list[Reply]:
            self.asked.extend(asks)
            return [Reply(**{"model": "canned", "text": "", **reply}) for reply in self.replies]

        yield answer
