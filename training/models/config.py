"""The shape of a ``VideoUNet``, in our words and in diffusers'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dailies.curation.errors import ModelError

KIND = "UNetSpatioTemporalConditionModel"
OWN_KIND = "VideoUNet"  # without added time ids or with a masked latent, which diffusers' class cannot do


def _check(fine: bool, name: str, value: object, wanted: str) -> None:
    if not fine:
        raise ModelError(f"{name}={value!r}: must be {wanted}")


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a ``VideoUNet``. Levels go from the largest latents to the smallest; each tuple has a number for each.

    Args:
        in_channels: 4 of latents, and those concatenated to them.
        attention: which levels have transformers (the middle always has one).
        layers: ResBlocks on each level down; up there is one more.
        heads, transformer_layers: of each level's transformers.
        cross_attention_dim: width of the tokens.
        time_id_width: width of the sinusoids of each added time id; ``None`` for a model without them.
        num_time_ids: how many there are: fps − 1, motion bucket, noise augmentation, and what a task adds.
        masked: it learns a latent that stands in for frames other than the conditioning ones.
        frames, sample_size: what it was made for; sample_size is latent (height, width). They limit nothing.

    Raises ``ModelError`` naming the field.
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    heads: tuple[int, ...] = (5, 10, 20, 20)
    transformer_layers: tuple[int, ...] = (1, 1, 1, 1)
    cross_attention_dim: int = 1024
    time_id_width: int | None = 256
    num_time_ids: int = 3
    masked: bool = False
    frames: int = 25
    sample_size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        levels = len(self.channels)
        _check(levels > 0, "channels", self.channels, "at least one level")
        _check(all(c > 0 and c % 32 == 0 for c in self.channels), "channels", self.channels, "multiples of 32")
        for name in ("attention", "heads", "transformer_layers"):
            _check(len(getattr(self, name)) == levels, name, getattr(self, name), f"one for each of {levels} levels")
        fits = all(h > 0 and c % h == 0 for c, h in zip(self.channels, self.heads, strict=True))
        _check(fits, "heads", self.heads, f"divisors of {self.channels}")
        _check(min(self.transformer_layers) > 0, "transformer_layers", self.transformer_layers, "positive numbers")
        for name in ("in_channels", "out_channels", "layers", "cross_attention_dim", "num_time_ids", "frames"):
            _check(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        even = self.time_id_width is None or (self.time_id_width > 0 and self.time_id_width % 2 == 0)
        _check(even, "time_id_width", self.time_id_width, "an even, positive number, or None")

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]

    def to_diffusers(self) -> dict[str, Any]:
        """Return what stands in ``config.json``; ``_class_name`` is our own for a model without added time ids."""
        kinds = ["CrossAttn" if has else "" for has in self.attention]
        size = self.sample_size
        return {
            "_class_name": KIND if self.time_id_width is not None and not self.masked else OWN_KIND,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.channels),
            "down_block_types": [f"{kind}DownBlockSpatioTemporal" for kind in kinds],
            "up_block_types": [f"{kind}UpBlockSpatioTemporal" for kind in reversed(kinds)],
            "layers_per_block": self.layers,
            "num_attention_heads": list(self.heads),
            "transformer_layers_per_block": list(self.transformer_layers),
            "cross_attention_dim": self.cross_attention_dim,
            "addition_time_embed_dim": self.time_id_width,
            "projection_class_embeddings_input_dim": None
            if self.time_id_width is None
            else self.num_time_ids * self.time_id_width,
            "num_frames": self.frames,
            "sample_size": list(size) if isinstance(size, tuple) else size,
            **({"masked_latent": True} if self.masked else {}),
        }

    @classmethod
    def from_diffusers(cls, row: Mapping[str, Any]) -> UNetConfig:
        """Read diffusers' ``config.json``, with its defaults for what is left out; other entries are ignored.

        Raises ``ModelError`` for another class, and for what we do not build: levels of unequal ``layers_per_block`` or
        ``cross_attention_dim``, blocks that are not SVD's, a way up that does not mirror the way down.
        """
        kind = row.get("_class_name", KIND)
        _check(kind in (KIND, OWN_KIND), "_class_name", kind, KIND)
        channels = tuple(row.get("block_out_channels", (320, 640, 1280, 1280)))
        attention = _attention(row, len(channels))
        width = row.get("addition_time_embed_dim", 256)
        projected = row.get("projection_class_embeddings_input_dim", 768)
        _check(width is None or projected % width == 0, "projection_class_embeddings_input_dim", projected,
               f"a multiple of addition_time_embed_dim = {width}")  # fmt: skip
        size = row.get("sample_size")
        return cls(
            in_channels=row.get("in_channels", 8),
            out_channels=row.get("out_channels", 4),
            channels=channels,
            attention=attention,
            layers=_equal(row, "layers_per_block", 2),
            heads=_each(row.get("num_attention_heads", (5, 10, 20, 20)), len(channels)),
            transformer_layers=_each(row.get("transformer_layers_per_block", 1), len(channels)),
            cross_attention_dim=_equal(row, "cross_attention_dim", 1024),
            time_id_width=width,
            num_time_ids=3 if width is None else projected // width,
            masked=bool(row.get("masked_latent", False)),
            frames=row.get("num_frames", 25),
            sample_size=tuple(size) if isinstance(size, (list, tuple)) else size,
        )


def _attention(row: Mapping[str, Any], levels: int) -> tuple[bool, ...]:
    plain, attends = "DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"
    down = tuple(row.get("down_block_types", (attends,) * 3 + (plain,)))
    _check(set(down) <= {plain, attends}, "down_block_types", down, f"{attends} and {plain}")
    _check(len(down) == levels, "down_block_types", down, f"one for each of {levels} levels")
    mirrored = tuple(kind.replace("Down", "Up") for kind in reversed(down))
    up = tuple(row.get("up_block_types", mirrored))
    _check(up == mirrored, "up_block_types", up, f"the way down mirrored, {mirrored},")
    return tuple(kind == attends for kind in down)


def _each(value: Any, levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else tuple(value)


def _equal(row: Mapping[str, Any], name: str, usual: int) -> int:
    value = row.get(name, usual)
    values = {value} if isinstance(value, int) else set(value)
    _check(len(values) == 1, name, value, "the same for all levels")
    return int(values.pop())


# config.json of stabilityai/stable-video-diffusion-img2vid-xt; and the paper's video model, before image-to-video: no
# concatenated image, and no added ids (arXiv 2311.15127, App. D: 1521M parameters, of which 656M are temporal).
SVD = UNetConfig(in_channels=8, frames=25, sample_size=96)
SVD_TEXT = UNetConfig(in_channels=4, time_id_width=None, frames=14)
