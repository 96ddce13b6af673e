"""What a model wrote is held against what it was given, by words alone: stems, and signs of answers that are none.

A word counts as another where both have one stem by Porter's second English stemmer (snowballstem.org): "moving" and "moves".
Other languages have no stop words here, and no colours: what is said of their texts is coarser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

STOP = frozenset(
    """a an the this that these those it its he she they him her his hers them their theirs i you we me my your our who whom
    which what where when while as if than then there here and or but nor so both either each every any all some such other
    another same own is are was were be been being am has have had having do does did doing will would can could may might
    must shall should of in on at by for from to into onto over under above below behind between among around across along
    through during before after near with within upon beside against about off out also too very just only something
    someone somebody thing things one ones image picture video clip scene footage frame shot photo view show shows showing
    shown depict depicts depicting see seen seems visible appear appears feature features featuring capture captures
    captured capturing contain contains containing display displays set""".split()
)
"""Words that say nothing by themselves, or speak of the clip as such: no text adds anything by them."""

SAME: Mapping[str, str] = {
    "gray": "grey",
    **dict.fromkeys(("slowly", "slower", "gently"), "slow"),
    **dict.fromkeys(("quick", "quickly", "rapid", "rapidly", "swiftly", "faster"), "fast"),
    **dict.fromkeys(("motion", "motions", "movement", "movements"), "move"),
    **dict.fromkeys(("motionless", "static", "stationary", "unmoving"), "still"),
    **dict.fromkeys(("big", "huge"), "large"),
    **dict.fromkeys(("little", "tiny"), "small"),
    **{f"{way}ward{s}": way for way in ("left", "right", "up", "down") for s in ("", "s")},
    **{str(count): name for count, name in enumerate("two three four five six seven eight nine ten".split(), 2)},
}
"""Words that count as another, besides their stems."""

RUN = 4  # words in a row that no text says twice
ECHO = 5  # words in a row that are the prompt's


def tokens(text: str) -> list[str]:
    """Return the stem of each word, in order."""
    return [stem(word) for word in WORD.findall(text.lower())]


@lru_cache(maxsize=1 << 14)
def stem(word: str) -> str:
    """Return the stem of a word in small letters, or of the word that it counts as."""
    word = word.replace("’", "'")
    return str(_stemmer().stemWord(SAME.get(word, word)))


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from snowballstemmer import stemmer

    return stemmer("english")


@lru_cache(maxsize=1)
def _stop_stems() -> frozenset[str]:
    return STOP | {stem(word) for word in STOP}


def content(stems: Iterable[str]) -> list[str]:
    """Return those of ``tokens`` that say something, in order."""
    return [each for each in stems if each not in _stop_stems()]


def added(text: str, sources: Sequence[str]) -> list[str]:
    """Return stems that say something in ``text``, each once, and that none of ``sources`` has."""
    known = {each for source in sources for each in tokens(source)}
    return [each for each in dict.fromkeys(content(tokens(text))) if each not in known]


def repeats(text: str, sources: Sequence[str] = ()) -> bool:
    """Return whether ``text`` says a run of words twice that none of ``sources`` says twice, or a word three times on end."""
    stems = tokens(text)
    twice = {run for run, count in _runs(stems, RUN).items() if count > 1}
    twice -= {run for source in sources for run, count in _runs(tokens(source), RUN).items() if count > 1}
    return bool(twice) or any(len({*stems[at : at + 3]}) == 1 for at in range(len(stems) - 2))


def echoes(text: str, prompt: str, sources: Sequence[str] = ()) -> bool:
    """Return whether ``text`` has a run of words of the ``prompt`` that is in none of ``sources``."""
    runs = _runs(tokens(text), ECHO).keys() & _runs(tokens(prompt), ECHO).keys()
    return bool(runs.difference(*(_runs(tokens(source), ECHO) for source in sources)))


def _runs(stems: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(stems[at : at + length]) for at in range(len(stems) - length + 1))
