"""Whether a merge of captions says what they say: by words, without a model.

It sees what words can tell: a colour, number, size, speed or direction that no caption has, or that stands with another noun or
verb than there; a caption's main noun that is gone; words that are new. Who does what it does not see: "a dog chases a cat" and
"a cat chases a dog" are one to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dailies.curation.caption_measures import refusals
from dailies.curation.chat import wording

BEFORE: Mapping[str, frozenset[str]] = {
    "color": frozenset(
        """red green blue yellow orange purple violet pink white black grey brown beige cyan magenta turquoise teal navy maroon
        olive mauve golden silver blond""".split()
    ),
    "number": frozenset("two three four five six seven eight nine ten several many few dozen".split()),
    "size": frozenset("large small".split()),
}
"""Kind → words that stand before what they are said of."""
BEHIND: Mapping[str, frozenset[str]] = {
    "direction": frozenset(
        "left right up down clockwise anticlockwise counterclockwise diagonally forward forwards backward backwards towards "
        "toward away in out".split()
    ),
}
"""The same of words that stand behind a verb; "in" and "out" count behind "zoom" alone."""
ALONE: Mapping[str, frozenset[str]] = {
    "speed": frozenset("slow fast".split()),
    "negation": frozenset("no not nothing nobody none never without still".split()),
}
"""The same of words that may stand anywhere."""
REACH = 4  # words that may stand between the two
SLACK = 8  # words that a merge may have more than its sources together


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeCheck:
    """What speaks against a merge, as words for ``flags``; ``bad``: so much that it is not kept."""

    flags: tuple[str, ...]
    bad: bool


@dataclass(frozen=True, slots=True)
class _Said:
    """The attributes of a text: (kind, word), and (kind, word, what it is said of)."""

    alone: frozenset[tuple[str, str]]
    bound: frozenset[tuple[str, str, str]]


def check_merge(
    text: str, captions: Sequence[str], *, context: Sequence[str] = (), prompt: str = "", max_added: int = 2
) -> MergeCheck:
    """Hold a merge against its ``captions``, and what else it was told, the ``context``.

    ``prompt``: what asked for it, without these. ``max_added``: new words of a merge that is kept.
    """
    sources = [*captions, *context]
    new = wording.added(text, sources)
    bad = {
        "too_long": len(text.split()) > sum(len(source.split()) for source in sources) + SLACK,
        "repeats": wording.repeats(text, sources),
        "echo": wording.echoes(text, prompt, sources),
        "refusal": refusals(text) > 0,
        "contradicts": _contradicts(text, sources),
        "drops_caption": any(_drops(text, caption) for caption in captions),
    }
    spoken = attributes(text).alone
    poor = {
        "adds_words": bool(new),
        "drops_words": not all(attributes(caption).alone <= spoken for caption in captions),
    }
    flags = tuple(name for name, holds in (bad | poor).items() if holds)
    return MergeCheck(flags=flags, bad=any(bad.values()) or len(new) > max_added)


def _drops(text: str, caption: str) -> bool:
    """Return whether a caption's main noun is gone, or over half of all that it says."""
    kept = {*wording.tokens(text)}
    whole = {*wording.content(wording.tokens(caption))}
    return main_noun(caption) not in kept | {None} or 2 * len(whole & kept) < len(whole)


def main_noun(caption: str) -> str | None:
    """Return the stem of the first word of a caption that says something and is no attribute: mostly what it is about."""
    known = _all_words()
    return next((each for each in wording.content(wording.tokens(caption)) if each not in known), None)


def attributes(text: str) -> _Said:
    """Return the attributes of a text."""
    stems = wording.tokens(text)
    names, known = {*wording.content(stems)}, _all_words()
    alone, bound = set[tuple[str, str]](), set[tuple[str, str, str]]()
    for at, word in enumerate(stems):
        for kinds, way in ((BEFORE, 1), (BEHIND, -1), (ALONE, 0)):
            for kind, values in kinds.items():
                if word not in _stems(values):
                    continue
                near = stems[at + 1 : at + 1 + REACH] if way > 0 else stems[max(0, at - REACH) : at][::-1]
                owner = next((each for each in near if each in names and each not in known), None) if way else None
                if word in ("in", "out") and (not near or near[0] != "zoom"):
                    continue
                alone.add((kind, word))
                if owner is not None:
                    bound.add((kind, word, owner))
    return _Said(frozenset(alone), frozenset(bound))


def _contradicts(text: str, sources: Sequence[str]) -> bool:
    merged, known = attributes(text), [attributes(source) for source in sources]
    alone = frozenset[tuple[str, str]]().union(*(each.alone for each in known))
    bound = frozenset[tuple[str, str, str]]().union(*(each.bound for each in known))
    if not merged.alone <= alone or any(kind == "negation" for kind, _ in alone - merged.alone):
        return True
    owners = {(kind, owner) for kind, _, owner in bound}
    return any(each not in bound for each in merged.bound if (each[0], each[2]) in owners)


@lru_cache(maxsize=32)
def _stems(values: frozenset[str]) -> frozenset[str]:
    return frozenset(wording.stem(word) for word in values)


@lru_cache(maxsize=1)
def _all_words() -> frozenset[str]:
    return frozenset[str]().union(*(_stems(values) for kinds in (BEFORE, BEHIND, ALONE) for values in kinds.values()))
