"""CIDEr-D: how much a caption has in common with its reference, in n-grams that weigh more the fewer references have them.

Vedantam et al. 2015 (arXiv 1411.5726), section on CIDEr-D. A caption c and its reference s are vectors over n-grams k,
g_k = h_k · log(N / max(1, d_k)): h_k counts k in the text, d_k of the N references have it. Then

    CIDEr-D_n(c, s) = 10 · exp(−(l_c − l_s)² / 2σ²) · Σ_k min(g_k(c), g_k(s)) · g_k(s) / (‖g(c)‖ ‖g(s)‖)

with lengths l in words and σ = 6; the minimum keeps a word that is said over and over from counting each time. The score
is the mean over n = 1 … 4. Counts are taken as they are, as the authors' code does (coco-caption): the clipping is one of
counts. That code's stemmer-free tokenizer is a word's letters and digits in lower case here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

LONGEST = 4  # words of an n-gram
SIGMA = 6.0  # words
_WORD = re.compile(r"\w+(?:'\w+)?")

Gram = tuple[str, ...]


def split_words(text: str) -> list[str]:
    """Return a text's words, in lower case and without punctuation."""
    return _WORD.findall(text.lower())


def grams(text: str) -> list[Counter[Gram]]:
    """Count a text's n-grams, for n from 1 to ``LONGEST``."""
    tokens = split_words(text)
    return [Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)) for n in range(1, LONGEST + 1)]


def cider_d(captions: Sequence[str], references: Sequence[str]) -> list[float]:
    """Score each of ``captions`` against the one reference at its place, 0–10.

    How rare an n-gram is, ``references`` say: of a single one every n-gram is in all of them, which scores 0.
    Raises ``ValueError`` where the two are not of one length.
    """
    theirs = [grams(text) for text in references]
    seen_in = Counter(gram for counts in theirs for of_length in counts for gram in of_length)
    rarity = {gram: math.log(len(references) / count) for gram, count in seen_in.items()}
    unseen = math.log(max(1, len(references)))
    scores = []
    for text, theirs_here in zip(captions, theirs, strict=True):
        ours = grams(text)
        apart = sum(ours[0].values()) - sum(theirs_here[0].values())
        penalty = math.exp(-(apart**2) / (2 * SIGMA**2))
        likeness = [
            _clipped_cosine(_weighed(mine, rarity, unseen), _weighed(other, rarity, unseen))
            for mine, other in zip(ours, theirs_here, strict=True)
        ]
        scores.append(10 * penalty * sum(likeness) / LONGEST)
    return scores


def _weighed(counts: Mapping[Gram, int], rarity: Mapping[Gram, float], unseen: float) -> dict[Gram, float]:
    return {gram: count * rarity.get(gram, unseen) for gram, count in counts.items()}


def _clipped_cosine(ours: Mapping[Gram, float], theirs: Mapping[Gram, float]) -> float:
    shared = sum(min(ours[gram], theirs[gram]) * theirs[gram] for gram in ours.keys() & theirs.keys())
    lengths = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    return shared / lengths if lengths else 0.0
