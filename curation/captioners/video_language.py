"""Video-language models of transformers: a folder that is checked and loaded, and a clip's frames put to it with a question.

One adapter over each model's own processor and chat template serves them all, for captioning and for training. A model
without a template, as InstructBLIP-Video is, gets the question as it stands. Only safetensors are read, and no code of
the folder runs; its chat template is rendered by transformers in a sandbox. torch and transformers are imported by
``load`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.downloads import hub_folder, quiet_loading
from dailies.curation.errors import Damaged, UsageError, first_line
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import CLASSES, PROCESSORS, TOKENIZERS, TYPES, refuse_code

Tensor: TypeAlias = Any  # torch.Tensor: importing curation must not load torch

KINDS = {
    "instructblipvideo": "InstructBlipVideoForConditionalGeneration",
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
"""``model_type`` → the class that is loaded."""

BACKBONES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_TOKENIZERS = TOKENIZERS | {
    f"{kind}Tokenizer{fast}" for kind in ("Llama", "Qwen2", "CodeLlama") for fast in ("", "Fast")
}
_PICTURES = PROCESSORS | {
    *("InstructBlipVideoProcessor", "LlavaNextVideoProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor"),
    *(
        f"{kind}ImageProcessor{how}"
        for kind in ("Blip", "InstructBlipVideo", "LlavaNext", "LlavaNextVideo", "Qwen2VL", "Qwen3VL")
        for how in ("", "Pil", "Fast")
    ),
    *(f"{kind}VideoProcessor" for kind in ("InstructBlipVideo", "LlavaNextVideo", "Qwen2VL", "Qwen3VL")),
}
ALLOWED: Mapping[str, frozenset[str]] = CLASSES | {
    "architectures": frozenset({*KINDS.values(), *BACKBONES, "CLIPVisionModel"}),
    "model_type": TYPES
    | {
        *(f"{kind}{part}" for kind in KINDS for part in ("", "_text", "_vision", "_vision_model", "_qformer")),
        *("llama", "mistral", "qwen2", "qwen3"),
    },
    "tokenizer_class": _TOKENIZERS,
    "processor_class": _PICTURES,
    "image_processor_type": _PICTURES,
    "feature_extractor_type": _PICTURES,
    "video_processor_type": _PICTURES,
}
"""Key → names that it may have in such a model's settings."""

MOST_PIXELS = 1 << 25
"""Of pictures and videos: Qwen's processors count their limits in pixels and not in px a side."""

CONFIG = "config.json"
SETTINGS = (
    *(CONFIG, "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"),
    *("vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "*.safetensors.index.json"),
)
FRAMES_OF = {"instructblipvideo": 4}
"""Kind → frames that it always takes."""


def fetched(name: str) -> Path:
    """Return the folder of a hub's repository ``OWNER/NAME``, fetching its data and none of what may be code."""
    return hub_folder(name, named=f"model={name!r}", wanted=["*.safetensors", *SETTINGS])


def check(folder: Path) -> str:
    """Return the kind of a folder that is whole and asks for no code. Raises ``Damaged`` or ``UsageError``."""
    refuse_code(folder, pickles=False, classes=ALLOWED, templates=True, most_side=MOST_PIXELS)
    path = folder / CONFIG
    try:
        kind = read_object(inside.read_named(path), str(path), Damaged).get("model_type")
    except OSError as error:
        raise UsageError(f"model={str(folder)!r}: {CONFIG} cannot be read: {error.strerror}") from error
    if kind not in KINDS:
        raise UsageError(f"model={str(folder)!r}: model_type={kind!r}: must be one of {', '.join(KINDS)}")
    if not any(without_litter(folder, "*.safetensors")):
        raise UsageError(f"model={str(folder)!r}: has no safetensors; convert its weights, which then hold no code")
    return str(kind)


@dataclass(frozen=True, kw_only=True)
class VideoLanguageModel:
    """A model with the processor that makes its frames and its words ready. ``kind``: of ``KINDS``."""

    model: Any
    processor: Any
    kind: str

    @property
    def frames(self) -> int | None:
        """Frames that it always takes, ``None`` where any number will do."""
        return FRAMES_OF.get(self.kind)

    def prompt_text(self, prompt: str, answer: str | None = None) -> str:
        """Return the question as the model's chat template words it, its beginning of an ``answer`` included; with one,
        the whole conversation."""
        if getattr(self.processor, "chat_template", None) is None:
            return prompt if answer is None else f"{prompt} {answer}"
        asked = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt}]}
        answered = [] if answer is None else [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        text: str = self.processor.apply_chat_template(
            [asked, *answered], tokenize=False, add_generation_prompt=answer is None
        )
        return text

    def ask(self, frames: NDArray[np.uint8], times: Sequence[float], seconds: float, prompt: str) -> dict[str, Tensor]:
        """Return what the model takes of a clip and a question, as a batch of one.

        Args:
            frames: (T, H, W, 3) RGB.
            times: of each frame, in s from the clip's start.
            seconds: the clip's length.
        """
        import torch

        video = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)
        if self.kind == "instructblipvideo":
            return dict(self.processor(images=video[None], text=[self.prompt_text(prompt)], return_tensors="pt"))
        # In milliseconds, so that both each frame's time and their mean rate come out as they are.
        milliseconds = {
            "fps": 1000.0,
            "total_num_frames": round(1000 * seconds),
            "duration": seconds,
            "frames_indices": [round(1000 * time) for time in times],
        }
        return dict(
            self.processor(
                text=[self.prompt_text(prompt)],
                videos=[video],
                video_metadata=[milliseconds],
                do_sample_frames=False,
                return_tensors="pt",
            )
        )

    def answer_ids(self, prompt: str, answer: str) -> list[int]:
        """Return the tokens of ``answer`` as the model would write it after ``prompt``, with the token that ends it."""
        asked, whole = self.prompt_text(prompt), self.prompt_text(prompt, answer)
        tokenizer = self.processor.tokenizer
        rest = whole[len(asked) :] if whole.startswith(asked) else f" {answer}"
        last = rest.find(answer) + len(answer)
        worded, behind = rest[:last], rest[last:]
        before = tokenizer(asked)["input_ids"]
        together = tokenizer(asked + worded)["input_ids"]
        # Where the two run together into one token, the answer stands alone, as it does when it is written.
        ids = together[len(before) :] if together[: len(before)] == before else _alone(tokenizer, worded)
        ids = [token for token in ids if token not in self.end_tokens]
        return [*ids, self._end(behind)]

    @property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        named = getattr(self.model.generation_config, "eos_token_id", None)
        ends = [] if named is None else named if isinstance(named, list) else [named]
        return [*ends, self.processor.tokenizer.eos_token_id] if not ends else list(ends)

    def _end(self, behind: str) -> int:
        """Return the token that ends an answer: the first of those ``behind`` it in the template that does, else the
        tokenizer's own."""
        ends = self.end_tokens
        written = [token for token in _alone(self.processor.tokenizer, behind) if token in ends]
        own = self.processor.tokenizer.eos_token_id
        return int(written[0] if written else own if own in ends else ends[0])

    def write(self, inputs: Mapping[str, Tensor], max_tokens: int) -> list[int]:
        """Return the tokens of the likeliest answer to what ``ask`` returned, one token at a time, without its end."""
        asked = inputs["input_ids"].shape[1]
        options = {"do_sample": False, "num_beams": 1, "max_new_tokens": max_tokens}
        out: list[int] = self.model.generate(**inputs, **options)[0].tolist()
        ids = out[asked:] if out[:asked] == inputs["input_ids"][0].tolist() else out
        ends = {*self.end_tokens, self.processor.tokenizer.pad_token_id}
        return ids[: next((at for at, token in enumerate(ids) if token in ends), len(ids))]

    def text(self, ids: Sequence[int]) -> str:
        """Decode tokens to text on one line."""
        return " ".join(str(self.processor.tokenizer.decode(list(ids), skip_special_tokens=True)).split())


def _alone(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def load(folder: Path, device: str, dtype: Any = None) -> VideoLanguageModel:
    """Load a model, in single precision unless ``dtype`` is another of torch's, ready for inference.

    Raises ``Damaged`` or ``UsageError`` naming the folder.
    """
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    kind = check(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_loading("transformers"):
            model, report = getattr(transformers, KINDS[kind]).from_pretrained(
                str(folder),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=dtype or torch.float32,
            )
            processor = transformers.AutoProcessor.from_pretrained(str(folder), **options)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, StrictDataclassError, SafetensorError) as error:
        raise UsageError(f"model={str(folder)!r}: cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report.get("missing_keys", ())):
        raise Damaged(f"{folder}: {len(missing)} of its tensors are missing, {missing[0]} first; get it whole")
    if getattr(model.config, "use_decoder_only_language_model", True) is False:
        raise UsageError(f"model={str(folder)!r}: its language model is an encoder-decoder; take one that only decodes")
    pictures: Any = getattr(processor, "video_processor", None)
    if getattr(pictures, "cap_pixels_per_frame", True) is None:
        pictures.cap_pixels_per_frame = True  # as its authors do; unset, transformers asks each time
    return VideoLanguageModel(model=model.eval().to(device), processor=processor, kind=kind)
