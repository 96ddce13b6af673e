"""How fast captioners are, and how much of the bare loop of their model that is.

``of_coca`` and ``of_video`` caption the same clips twice in turns: by the captioner, from JPEGs to rows, and by the model's own
loop on tensors that are ready beforehand, in the same batches. The share is the loop's time over the captioner's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from open_clip.coca_model import CoCa

from dailies.curation import openclip
from dailies.curation.captioners import CocaCaptioner, VideoCaptioner
from dailies.curation.chat import chat_folder
from dailies.curation.chat.batches import batches
from dailies.curation.chat.generation import answers
from dailies.curation.chat.inputs import Prepared, collate, prepare
from dailies.curation.openclip.openclip_folder import CONFIG
from dailies.curation.types import Evidence
from scripts.builtin.train_coca import save_settings, save_weights

Report = dict[str, Any]


def save_coca(folder: Path) -> Path:
    """Write a CoCa of 63 million random weights with the built-in one's words."""
    folder.mkdir()
    save_settings(folder)
    settings = json.loads((folder / CONFIG).read_text())
    towers = settings["model_cfg"]
    for name, layers in (("vision_cfg", 8), ("text_cfg", 4), ("multimodal_cfg", 4)):
        towers[name] |= {"width": 512, "layers": layers}
    towers["vision_cfg"] |= {"head_width": 64, "image_size": [144, 256]}
    settings["preprocess_cfg"]["size"] = [144, 256]
    (folder / CONFIG).write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = CoCa(**{name: value for name, value in towers.items() if name != "custom_text"})
    torch.nn.init.normal_(model.text_decoder.text_projection, std=0.05)
    save_weights(model, folder)
    return folder


def of_coca(
    clips: Sequence[Evidence], model: str, decode: Any, *, batch: int = 16, runs: int = 2, max_tokens: int | None = None
) -> Report:
    """Captions a second of a CoCa, beside its towers and its search alone."""
    spec = CocaCaptioner(model=model, decode=decode, batch=batch, max_tokens=max_tokens)
    loaded = openclip.load(model)
    frames = [
        torch.stack([loaded.ready(clip.frames[len(clip.frames) // 2]) for clip in part])
        for part in _parts(clips, batch)
    ]

    def bare() -> None:
        with torch.inference_mode():
            for pictures, part in zip(frames, _parts(clips, batch), strict=True):
                spec._decode(loaded, loaded.model._encode_image(pictures), part)

    with spec.open() as caption:
        caption(clips[:batch])  # what is made at first use is made
        return _report(lambda: caption(clips).to_pydict(), bare, len(clips), runs)


def of_video(clips: Sequence[Evidence], folder: Path, *, runs: int = 2, **parameters: Any) -> Report:
    """Captions a second of a video-language model, beside ``generate`` alone, in the batches that the captioner makes."""
    spec = VideoCaptioner(model=str(folder), **parameters)
    loaded = chat_folder.load(folder)
    ready = [prepare(loaded, number, ask) for number, ask in enumerate(spec.asks(clips))]
    collated: list[tuple[dict[str, Any], Sequence[Prepared]]] = [
        (collate(loaded, batch), batch) for batch in batches(ready, spec.batch_tokens)
    ]

    def bare() -> None:
        with torch.inference_mode():
            for inputs, batch in collated:
                loaded.model.generate(**inputs, max_new_tokens=batch[0].max_tokens)

    answers(loaded, ready[:1])
    with spec.open() as caption:
        caption(clips[:1])
        report = _report(lambda: caption(clips).to_pydict(), bare, len(clips), runs)
    parameters_of = sum(each.numel() for each in loaded.model.parameters())
    return {
        **report,
        "batches": len(collated),
        "prompt_tokens": median(each.tokens for each in ready),
        "parameters": parameters_of,
    }


def _report(whole: Callable[[], dict[str, Any]], bare: Callable[[], None], clips: int, runs: int) -> Report:
    """Time both in turns."""
    rows: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {"whole": [], "bare": []}
    for _ in range(runs):
        began = time.perf_counter()
        rows = whole()
        seconds["whole"].append(time.perf_counter() - began)
        began = time.perf_counter()
        bare()
        seconds["bare"].append(time.perf_counter() - began)
    taken, alone = (min(seconds[name]) for name in ("whole", "bare"))  # what else runs here only makes it longer
    tokens = sum(count or 0 for count in rows["tokens"])
    return {
        "clips": clips,
        "captions_per_second": round(clips / taken, 2),
        "tokens_per_second": round(tokens / taken, 1),
        "share_of_bare_loop": round(alone / taken, 3),
    }


def _parts(clips: Sequence[Evidence], batch: int) -> list[Sequence[Evidence]]:
    return [clips[first : first + batch] for first in range(0, len(clips), batch)]
