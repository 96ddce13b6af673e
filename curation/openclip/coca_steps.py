"""CoCa's decoder one token at a time: what its layers made of earlier tokens, and of the image, is kept.

open_clip's forward computes the whole sequence again for each token, and the image's keys and values in every layer. Of a
layer the weights are used as its forward uses them, so that what comes out is the same but for rounding. Shapes: B images,
K sequences of each, N = B·K, H heads, P image tokens, V tokens in the vocabulary, D width.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

Tensor: TypeAlias = Any  # torch.Tensor: importing curation must not load torch


class Steps(Protocol):
    """Sequences that grow by a token each."""

    def next(self, ids_N: Tensor) -> Tensor:  # noqa: N803
        """Return the logits (N, V) of what follows ``ids_N``, each sequence's newest token."""

    def keep(self, parents_N: Tensor) -> None:  # noqa: N803
        """Go on with these sequences, by number, in the place of all."""


def steps(model: Any, image: tuple[Tensor, Tensor], sequences: int = 1) -> Steps:
    """Begin ``sequences`` for each image of ``model._encode_image``, keeping layers where the model has the usual ones."""
    text: Any = getattr(model, "text", None)
    blocks = [*text.transformer.resblocks, *model.text_decoder.resblocks] if hasattr(text, "transformer") else []
    usual = bool(blocks) and all(hasattr(getattr(block, "attn", None), "in_proj_weight") for block in blocks)
    causal = getattr(text, "attn_mask", None) is not None
    return Kept(model, image[1], sequences) if usual and causal else Recomputed(model, image, sequences)


class Recomputed:
    """The model's own forward over all of a sequence, for text towers of other kinds."""

    def __init__(self, model: Any, image: tuple[Tensor, Tensor], sequences: int) -> None:
        self._model = model
        self._latent, self._tokens = (part.repeat_interleave(sequences, 0) for part in image)
        self._ids: Tensor = None

    def next(self, ids_N: Tensor) -> Tensor:  # noqa: N803
        import torch

        newest = ids_N[:, None]
        self._ids = newest if self._ids is None else torch.cat([self._ids, newest], 1)
        out = self._model(None, self._ids, image_latent=self._latent, image_embs=self._tokens, output_labels=False)
        return out["logits"][:, -1]

    def keep(self, parents_N: Tensor) -> None:  # noqa: N803
        self._ids = self._ids[parents_N]


class Kept:
    """Keys and values of earlier tokens and of the image, layer by layer."""

    def __init__(self, model: Any, tokens_BPD: Tensor, sequences: int) -> None:  # noqa: N803
        self._model, self._sequences, self._at = model, sequences, 0
        decoder = model.text_decoder
        self._image = [_keys_values(block.attn, block.ln_1_kv(tokens_BPD)) for block in decoder.cross_attn]
        self._past: dict[Any, tuple[Tensor, Tensor]] = {}

    def next(self, ids_N: Tensor) -> Tensor:  # noqa: N803
        text, decoder = self._model.text, self._model.text_decoder
        x_ND = text.token_embedding(ids_N) + text.positional_embedding[self._at]  # noqa: N806
        for block in text.transformer.resblocks:
            x_ND = self._within(block, x_ND)  # noqa: N806
        if text.cls_emb is None:
            x_ND = text.ln_final(x_ND)  # noqa: N806
        for block, cross, image in zip(decoder.resblocks, decoder.cross_attn, self._image, strict=True):
            x_ND = self._across(cross, self._within(block, x_ND), image)  # noqa: N806
        out = decoder.ln_final(x_ND)
        self._at += 1
        return out if decoder.text_projection is None else out @ decoder.text_projection

    def keep(self, parents_N: Tensor) -> None:  # noqa: N803
        self._past = {block: (keys[parents_N], values[parents_N]) for block, (keys, values) in self._past.items()}

    def _within(self, block: Any, x_ND: Tensor) -> Tensor:  # noqa: N803
        """Return what a layer makes of the newest token, which looks at itself and at those before."""
        import torch

        seen_N1D = block.ln_1(x_ND)[:, None]  # noqa: N806
        new = _keys_values(block.attn, seen_N1D)
        past = self._past.get(block)
        kept = new if past is None else (torch.cat([past[0], new[0]], 2), torch.cat([past[1], new[1]], 2))
        self._past[block] = kept
        return _after(block, x_ND, _attend(block.attn, seen_N1D, *kept)[:, 0])

    def _across(self, block: Any, x_ND: Tensor, image: tuple[Tensor, Tensor]) -> Tensor:  # noqa: N803
        """Return what a layer makes of the newest token, which looks at its image: all sequences of one at a time."""
        seen_BKD = block.ln_1(x_ND).unflatten(0, (-1, self._sequences))  # noqa: N806
        return _after(block, x_ND, _attend(block.attn, seen_BKD, *image).flatten(0, 1))


def _heads(x_BLD: Tensor, heads: int) -> Tensor:  # noqa: N803
    return x_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def _keys_values(attn: Any, x_BLD: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    """Return keys and values (B, H, L, D/H) of what is looked at."""
    from torch.nn.functional import linear

    width = attn.embed_dim
    keys, values = linear(x_BLD, attn.in_proj_weight[width:], attn.in_proj_bias[width:]).chunk(2, -1)
    return _heads(keys, attn.num_heads), _heads(values, attn.num_heads)


def _attend(attn: Any, x_BLD: Tensor, keys: Tensor, values: Tensor) -> Tensor:  # noqa: N803
    """Return (B, L, D) of what looks at ``keys`` and ``values``."""
    from torch.nn.functional import linear, scaled_dot_product_attention

    width = attn.embed_dim
    queries = _heads(linear(x_BLD, attn.in_proj_weight[:width], attn.in_proj_bias[:width]), attn.num_heads)
    return attn.out_proj(scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


def _after(block: Any, x_ND: Tensor, attended_ND: Tensor) -> Tensor:  # noqa: N803
    x_ND = x_ND + block.ls_1(attended_ND)  # noqa: N806
    return x_ND + block.ls_2(block.mlp(block.ln_2(x_ND)))
