"""A tiny CoCa with random weights in open_clip's own format, which reads the built-in one's words.

Imports torch and open_clip: tests that use it skip where they are absent.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from shutil import copyfile

import torch
from open_clip.coca_model import CoCa
from safetensors.torch import save_file

BUILTIN = Path(__file__).resolve().parents[1] / "zoo" / "builtin" / "coca-world"
SMALL = {"layers": 2, "width": 32, "heads": 2}


def write_coca(folder: Path, *, seed: int = 0) -> Path:
    """Write a CoCa of two layers a tower, 32 wide, on 32×32 px."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    config = json.loads((BUILTIN / "open_clip_config.json").read_text())
    model = config["model_cfg"]
    model["embed_dim"] = 32
    model["vision_cfg"] |= {"image_size": [32, 32], "layers": 2, "width": 32, "head_width": 16}
    model["text_cfg"] |= SMALL
    model["multimodal_cfg"] |= SMALL
    config["preprocess_cfg"]["size"] = [32, 32]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copyfile(BUILTIN / name, folder / name)
    made_of = copy.deepcopy(model)
    made_of.pop("custom_text")
    coca = CoCa(**made_of)
    torch.nn.init.normal_(coca.text_decoder.text_projection, std=32**-0.5)  # open_clip leaves the memory it was given
    save_file(
        {name: value.contiguous() for name, value in coca.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder
