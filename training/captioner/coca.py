"""CoCa in training: open_clip's model and loss, on the middle frame of each clip.

Yu et al. 2022 (arXiv 2205.01917): the contrast between images and captions, plus the cross-entropy of a caption's tokens,
which sees the image; equation 4 weighs them 1 and 2.

Shape suffixes: B clips, L tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from dailies.curation import openclip
from dailies.curation.errors import ModelError
from dailies.curation.openclip import decoding, openclip_folder
from dailies.training import distributed
from dailies.training.captioner.models import IGNORED, CaptionNetwork, Inputs, TokenScores
from dailies.training.captioner.pairs import Pair
from dailies.training.captioner.recipe import CaptionerRecipe

WEIGHTS = "open_clip_model.safetensors"
MOST_SCALE = 100.0  # that cosines are multiplied by: CLIP's limit


class CocaNetwork(CaptionNetwork):
    """``start``: a model's name as ``dailies.curation.openclip`` takes it.

    Raises ``ModelError`` for one that is no CoCa, and for a recipe that asks for what is not for CoCa.
    """

    kind: ClassVar[str] = "coca"
    frames = 1

    def __init__(self, start: str, recipe: CaptionerRecipe) -> None:
        super().__init__()
        if recipe.trains != "whole":
            raise ModelError(f"trains={recipe.trains!r}: adapters are for video-language models; a CoCa learns whole")
        self._start, self._loaded = start, openclip.load(start)
        self.model: Any = self._loaded.model
        if not hasattr(self.model, "text_decoder"):
            raise ModelError(f"from={start}: not a CoCa, so it cannot write captions; name a model coca_…")
        self.model.visual.requires_grad_(recipe.vision)
        if recipe.checkpointing:
            self.model.set_grad_checkpointing(True)
        self.contrast = recipe.contrast_weight > 0
        self.skips_weights = not self.contrast
        self._recipe = recipe
        self._one_at_a_time = threading.Lock()  # tokenizers hold a state that threads may not share
        longest = min(int(self.model.context_length), int(self.model.text.context_length))
        self._most = min(longest, recipe.max_tokens)

    def inputs(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        from PIL import Image

        pixels = [self._loaded.prepare(Image.fromarray(pair.frames[len(pair.frames) // 2])) for pair in pairs]
        with self._one_at_a_time:
            ids_BL = self._loaded.tokenize([pair.caption for pair in pairs])
        ids_BL[:, self._most :] = self._loaded.special_tokens.pad
        return {"pixels": torch.stack(pixels), "ids": ids_BL}

    def forward(self, pixels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        from open_clip.loss import CoCaLoss

        world = distributed.world()
        loss = CoCaLoss(
            caption_loss_weight=self._recipe.caption_weight,
            clip_loss_weight=self._recipe.contrast_weight,
            pad_id=self._loaded.special_tokens.pad,
            rank=world.rank,
            world_size=world.size,
            gather_with_grad=True,
        )
        out = self.model(pixels, ids)
        contrast, caption = loss(
            out["image_features"],
            out["text_features"],
            out["logits"],
            out["labels"],
            out["logit_scale"].clamp(max=MOST_SCALE),
        )
        scores = self._scored(out["logits"].detach(), out["labels"])
        count = len(ids)
        figures = {"loss": contrast + caption, "caption": caption.detach()}
        if self.contrast:
            figures["contrast"] = contrast.detach()
        return {name: count * value for name, value in figures.items()} | {"token_accuracy": scores.accuracy}

    def token_scores(self, inputs: Inputs) -> TokenScores:
        out = self.model(inputs["pixels"], inputs["ids"])
        return self._scored(out["logits"], out["labels"])

    def _scored(self, logits_BLV: Tensor, labels_BL: Tensor) -> TokenScores:
        pad = self._loaded.special_tokens.pad
        return TokenScores.of(logits_BLV, labels_BL.masked_fill(labels_BL == pad, IGNORED))

    def write(self, pair: Pair) -> str:
        special = self._loaded.special_tokens
        image = self.model._encode_image(self.inputs([pair])["pixels"].to(self.device))
        ids = decoding.greedy(self.model, image, special, self._most).without(special)[0]
        return self._loaded.text(ids)

    def save(self, folder: Path) -> None:
        write_settings(self._start, self._loaded, folder)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        save_file(weights, folder / WEIGHTS)


def write_settings(start: str, loaded: openclip.Loaded, folder: Path) -> None:
    """Write what open_clip needs beside the weights: those files of the start's folder, or what its own lists say."""
    place = openclip.folder_of(start)
    if place is not None:
        for name in openclip_folder.SETTINGS:
            if (place / name).is_file():
                shutil.copyfile(place / name, folder / name)
        return
    row = json.dumps(own_config(start, getattr(loaded.model, "visual", None)), indent=2) + "\n"
    (folder / openclip_folder.CONFIG).write_text(row, encoding="utf-8")
    if (tokenizer := getattr(loaded.tokenize, "tokenizer", None)) is not None:
        tokenizer.save_pretrained(str(folder))


def own_config(name: str, visual: Any) -> dict[str, Any]:
    """Return the ``open_clip_config.json`` of a model that open_clip lists as ``name``, as its weights need it.

    ``visual``: its image tower, which knows how pictures are made ready.
    """
    import open_clip

    from dailies.curation.openclip.openclip_activation import activation

    model_name, _, tag = name.partition(":")
    config = dict(open_clip.get_model_config(model_name) or {})
    if activation(model_name, tag or None).get("force_quick_gelu"):
        config["quick_gelu"] = True
    known = dict(getattr(visual, "preprocess_cfg", None) or {})
    keys = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
    preprocess = {
        key: list(known[key]) if isinstance(known[key], tuple) else known[key] for key in keys if key in known
    }
    return {"model_cfg": config, "preprocess_cfg": preprocess}
