"""Captions out of CoCa's forward: greedy, nucleus (top-p) and beam search.

open_clip's own ``generate()`` leans on parts of transformers that version 5 took out; these need torch alone. Each takes
what the image tower put out and gives the most likely, or a drawn, sequence per image. CoCa is arXiv 2205.01917, the
nucleus arXiv 1904.09751. Shapes: B images, L tokens, V tokens in the vocabulary, K beams, D width, P image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dailies.curation.openclip.coca_steps import Steps, steps
from dailies.curation.openclip.models import SpecialTokens

Tensor: TypeAlias = Any  # torch.Tensor: importing curation must not load torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Decoded sequences of token ids.

    ``ids_BL``: from the start token on, padded behind the end token, which a sequence cut off at ``max_tokens`` lacks.
    ``log_prob_B``: natural logarithm of each sequence's probability, start and end included.
    """

    ids_BL: Tensor  # noqa: N815
    log_prob_B: Tensor  # noqa: N815

    def without(self, special: SpecialTokens) -> list[list[int]]:
        """Return each row's ids without the special tokens."""
        drop = (special.start, special.end, special.pad)
        return [[token for token in row if token not in drop] for row in self.ids_BL.tolist()]


def greedy(model: Any, image: tuple[Tensor, Tensor], special: SpecialTokens, max_tokens: int) -> Decoded:
    """Take the likeliest token each time. ``image``: (latent_BD, tokens_BPD) of ``model._encode_image``; ``max_tokens``: most
    tokens with start and end.
    """

    def likeliest(log_probs_BV: Tensor, step: int) -> Tensor:  # noqa: N803
        return log_probs_BV.argmax(-1)

    return _one_by_one(model, image, special, max_tokens, likeliest)


def top_p(
    model: Any,
    image: tuple[Tensor, Tensor],
    special: SpecialTokens,
    max_tokens: int,
    *,
    share: float,
    generators: Sequence[Any],
) -> Decoded:
    """Draw each token from the likeliest ones that together have ``share`` of the probability.

    ``generators``: a CPU ``torch.Generator`` for each image, so that a caption does not depend on what shares its batch.
    A share towards 0 is greedy. Raises ``ValueError`` for a share outside (0, 1].
    """
    import torch

    if not 0 < share <= 1:
        raise ValueError(f"share={share}: must be over 0 and at most 1")
    draws_BL = torch.stack([torch.rand(max_tokens, generator=generator) for generator in generators])  # noqa: N806

    def drawn(log_probs_BV: Tensor, step: int) -> Tensor:  # noqa: N803
        probs, tokens = log_probs_BV.exp().sort(dim=-1, descending=True, stable=True)
        before = probs.cumsum(-1) - probs
        probs = probs.masked_fill(before >= share, 0)
        probs[:, 0] = probs[:, 0].clamp(min=1e-30)  # the likeliest is always in
        cdf = probs.cumsum(-1)
        u = draws_BL[:, step, None].to(cdf) * cdf[:, -1:]
        index = torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[-1] - 1)
        return tokens.gather(1, index)[:, 0]

    return _one_by_one(model, image, special, max_tokens, drawn)


def beam(
    model: Any,
    image: tuple[Tensor, Tensor],
    special: SpecialTokens,
    max_tokens: int,
    *,
    beams: int,
    length_penalty: float = 1.0,
) -> Decoded:
    """Find the best of ``beams`` sequences kept at each step; a finished one keeps its place and its probability.

    Beams are ranked by log-probability while they grow; at the end by log-probability over length to the power of
    ``length_penalty`` (0: probability alone, 1: mean per token). One beam is greedy. Raises ``ValueError`` for no beams.
    """
    import torch

    if beams < 1:
        raise ValueError(f"beams={beams}: must be at least 1")
    count, device = len(image[0]), image[0].device
    growing = steps(model, image, beams)
    ids_NL = torch.full((count * beams, 1), special.start, dtype=torch.long, device=device)  # noqa: N806
    scores_BK = image[0].new_full((count, beams), -torch.inf)  # noqa: N806
    scores_BK[:, 0] = 0  # all start alike: only one of them may branch first
    base = torch.arange(count, device=ids_NL.device)[:, None] * beams
    for _ in range(max_tokens - 1):
        if _finished(ids_NL, special).all():
            break
        log_probs_NV = _log_probs(growing, ids_NL, special)  # noqa: N806
        vocabulary = log_probs_NV.shape[-1]
        ahead = (scores_BK[..., None] + log_probs_NV.view(count, beams, vocabulary)).flatten(1)
        scores_BK, best = ahead.topk(beams, dim=1)  # noqa: N806
        parents = (base + best // vocabulary).flatten()
        growing.keep(parents)
        ids_NL = torch.cat([ids_NL[parents], (best % vocabulary).view(-1, 1)], 1)  # noqa: N806
    lengths_BK = (ids_NL != special.pad).sum(1).view(count, beams)  # noqa: N806
    chosen = (scores_BK / (lengths_BK - 1).clamp(min=1) ** length_penalty).argmax(1, keepdim=True)
    return Decoded(ids_BL=ids_NL[(base + chosen).flatten()], log_prob_B=scores_BK.gather(1, chosen)[:, 0])


# ---- one step -------------------------------------------------------------------------------------------------------


def _one_by_one(
    model: Any,
    image: tuple[Tensor, Tensor],
    special: SpecialTokens,
    max_tokens: int,
    choose: Callable[[Tensor, int], Tensor],
) -> Decoded:
    import torch

    count, device = len(image[0]), image[0].device
    ids_BL = torch.full((count, 1), special.start, dtype=torch.long, device=device)  # noqa: N806
    total_B = image[0].new_zeros(count)  # noqa: N806
    growing = steps(model, image)
    for step in range(max_tokens - 1):
        if _finished(ids_BL, special).all():
            break
        log_probs_BV = _log_probs(growing, ids_BL, special)  # noqa: N806
        token_B = choose(log_probs_BV, step)  # noqa: N806
        total_B = total_B + log_probs_BV.gather(1, token_B[:, None])[:, 0]  # noqa: N806
        ids_BL = torch.cat([ids_BL, token_B[:, None]], 1)  # noqa: N806
    return Decoded(ids_BL=ids_BL, log_prob_B=total_B)


def _finished(ids_BL: Tensor, special: SpecialTokens) -> Tensor:  # noqa: N803
    last = ids_BL[:, -1]
    return (last == special.end) | (last == special.pad)


def _log_probs(growing: Steps, ids_BL: Tensor, special: SpecialTokens) -> Tensor:  # noqa: N803
    """Return (B, V) of the next token: never a start; padding after a sequence that has ended, and only there."""
    import torch

    logits_BV = growing.next(ids_BL[:, -1]).float()  # noqa: N806
    logits_BV[:, [special.start, special.pad]] = -torch.inf
    log_probs_BV = logits_BV.log_softmax(-1)  # noqa: N806
    ended = _finished(ids_BL, special)
    log_probs_BV[ended] = -torch.inf
    log_probs_BV[ended, special.pad] = 0
    return log_probs_BV
