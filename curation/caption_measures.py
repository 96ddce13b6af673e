"""What a caption's words say of it: repetition, refusals, echo of a prompt, unprintable characters, likeness of two texts.

All of it is counted; no model is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from dailies.curation.plain_text import clean

LONGEST = 6
"""Characters of the longest n-grams of chrF."""

_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs: no spaces part their words
_WORD = re.compile(rf"[{_CHARACTERS}]|(?:(?![{_CHARACTERS}])\w)+(?:['’](?:(?![{_CHARACTERS}])\w)+)*")

REFUSALS = (
    r"\bas an? (?:ai|artificial intelligence|language model|large language model|vision[- ]language model)\b",
    r"\b(?:i am|i['’]m) (?:an? (?:ai|artificial intelligence|language model)|(?:not able|unable) to|sorry|afraid)\b",
    r"\bi (?:cannot|can['’]t|can not|could not|couldn['’]t|won['’]t|will not|do not|don['’]t) (?:\w+ )?"
    r"(?:see|view|watch|play|access|open|provide|describe|identify|help|assist|determine|process|analy[sz]e|comply|"
    r"merge|combine|write|rewrite|answer|create|tell|say|continue|go on|do (?:that|this|it)|"
    r"have (?:access|the ability))\b",
    r"\b(?:sorry|apologi[sz]e|apologies)\b[ ,]+(?:but|for|i)\b",
    r"\b(?:no|not any|without any) (?:image|images|video|videos|frame|frames|picture|pictures) "
    r"(?:was|were|is|are|has been|have been) (?:provided|given|attached|included|uploaded|shared|visible)\b",
    r"\bplease (?:provide|upload|share|attach) (?:the|an?|your|more)\b",
    r"\b(?:violates?|against) (?:my|the|our|your)? ?(?:\w+ )?(?:policy|policies|guidelines)\b",
)
"""Phrases with which models refuse, or say that they see nothing. English ones: models refuse in it, whatever they write."""
_REFUSAL = re.compile("|".join(f"(?:{each})" for each in REFUSALS), re.IGNORECASE)


def split_words(text: str) -> list[str]:
    """Return a text's words without punctuation, in lower case; each kana and ideograph by itself."""
    return _WORD.findall(text.casefold())


def ngrams(words_of: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return all runs of ``size`` words, in order."""
    return list(zip(*(words_of[at:] for at in range(size)), strict=False))


def repetition(text: str, size: int = 3) -> float:
    """Return the share of a text's n-grams of ``size`` words that are not the first of their kind: 1 - distinct / all.

    It is seq-rep-n of Welleck et al. 2019 (arXiv 1908.04319); 0 for a text of fewer words.
    """
    grams = ngrams(split_words(text), size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def refusals(text: str) -> int:
    """Return how many of the phrases of ``REFUSALS`` a text holds."""
    return len(_REFUSAL.findall(text))


def echo(text: str, prompt: str, size: int = 3) -> float:
    """Return the share of a prompt's distinct n-grams that a text repeats.

    ``size``: words of an n-gram, or as many as the prompt has, where it has fewer.
    """
    asked = split_words(prompt)
    size = min(size, len(asked))
    if not size:
        return 0.0
    grams = set(ngrams(asked, size))
    return len(grams & set(ngrams(split_words(text), size))) / len(grams)


def unprintable(text: str) -> int:
    """Return how many characters of a text no reader sees as they are meant.

    Counted are controls but tab and newline, marks that hide or turn the direction of text, the replacement character
    of broken bytes, private ones, lone surrogates and those that Unicode has not assigned.
    """
    return sum(
        character == "\ufffd" or unicodedata.category(character) in ("Co", "Cn", "Cs") or not clean(character)
        for character in text
    )


def chrf(left: str, right: str) -> float:
    """Return how alike two texts are: chrF (Popović 2015) with β = 1, 0 to 1, the same either way round.

    Precision and recall of character n-grams, spaces left out, are averaged over n from 1 to ``LONGEST``, as far as both
    texts have n-grams of n, and their harmonic mean is taken. Case does not count.
    """
    texts = ["".join(each.casefold().split()) for each in (left, right)]
    precisions, recalls = [], []
    for size in range(1, LONGEST + 1):
        ours, theirs = (Counter(text[at : at + size] for at in range(len(text) - size + 1)) for text in texts)
        if not ours or not theirs:
            break
        shared = (ours & theirs).total()
        precisions.append(shared / ours.total())
        recalls.append(shared / theirs.total())
    precision, recall = (fmean(each) if each else 0.0 for each in (precisions, recalls))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def agreement(text: str, others: Sequence[str]) -> float | None:
    """Return the mean ``chrf`` of a text with others; None without any."""
    return fmean(chrf(text, other) for other in others) if others else None
