"""A training run as the trainer leaves one, with tiny random models in the real formats, and the export it names.

Imports torch, diffusers and transformers: tests that use it skip where they are absent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from dailies.curation import export_schema, schema
from dailies.curation.export import CaptionMaker, ExportManifest, write_card
from dailies.curation.tables.storage import Folder

WIDTH, HEIGHT, FRAMES, FPS = 64, 32, 4, 8
CLIPS = ("aaaa1111bbbb2222cccc3333", "dddd4444eeee5555ffff6666")
SOURCE = "videos/kitchen.mp4"
RULES = {"motion": {"min_quantile": 0.25, "nulls": None}, "text_area": {"max": 0.07}}
LIMITS = {"motion": {"min": 1.375}, "text_area": {"max": 0.07}}
WORDS = ("red", "blue", "circle", "square", "falls", "a")


def make_run(folder: Path) -> Path:
    """Write EXPORT, models and RUN under ``folder``; returns RUN."""
    torch.manual_seed(0)
    manifest = make_export(folder / "export")
    named = make_models(folder / "models")
    run = folder / "run"
    phases = [
        phase("image", "text-to-image", frames=1),
        phase("video", "text-to-video"),
        phase("animate", "image-to-video", clips=2),
        phase("hq", "image-to-video", done=False),
    ]
    for one in phases:
        if one["done"] and one["task"] != "text-to-image":
            channels = 8 if one["task"] == "image-to-video" else 4
            for which in ("unet", "unet_ema"):
                unet(channels).save_pretrained(run / one["checkpoint"] / which)
            Image.new("RGB", (WIDTH * 4, HEIGHT * 2), "teal").save(run / one["samples"])
    facts = {
        "recipe": {
            "name": "tiny",
            "text_tokens": 10,
            "caption": [["caption_told", 1.0]],
            "phases": [sampling(one) for one in phases],
        },
        "recipe_hash": "feedc0de",
        "data": str(folder / "export"),
        "export": json.loads(manifest.to_json()),
        "models": named,
        "phases": phases,
    }
    (run / "run.json").write_text(json.dumps(facts))
    return run


def phase(name: str, task: str, *, frames: int = FRAMES, done: bool = True, clips: int = 40) -> dict[str, Any]:
    return {
        "name": name,
        "task": task,
        "steps": 200,
        "done": done,
        "seconds": 93.5,
        "validation": [[0, 1.25], [100, 0.8], [200, 0.625]] if done else [],
        "checkpoint": f"phases/{name}/step-000200",
        "samples": f"phases/{name}/samples.png",
        "size": [WIDTH, HEIGHT],
        "frames": frames,
        "fps": FPS,
        "clips": clips,
        "first_clip_ids": list(CLIPS) if done else [],
    }


def sampling(phase: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says of a phase, as far as publishing reads it; its noise_aug is a distribution, not a value."""
    return {
        "name": phase["name"],
        "sigma_max": 80.0,
        "guidance": [1.0, 2.5],
        "sample_steps": 3,
        "noise_aug": [-3.0, 0.5],
    }


def make_export(folder: Path) -> ExportManifest:
    """An index, export.json and a card as curation writes them."""
    folder.mkdir(parents=True)
    rows = []
    for number, clip in enumerate(CLIPS):
        row = schema.empty_row(export_schema.export_index([]))
        row |= {"clip_id": clip, "source_id": f"source{number}", "uri": SOURCE, "split": "train", "status": "ok"}
        row |= {
            "source_start": 512 * number,
            "source_end": 512 * (number + 1),
            "time_base_num": 1,
            "time_base_den": 256,
        }
        row |= {"seconds": 2.0, "lost_seconds": 0.0, "extraction": "encode", "bytes": 1000}
        rows.append(row)
    index = pa.Table.from_pylist(rows, schema=export_schema.export_index([]))
    pq.write_table(index, folder / "index.parquet")
    manifest = ExportManifest.of(
        index,
        name="export",
        recipe="quickstart",
        recipe_hash="0123abcd",
        captions={
            "caption_told": CaptionMaker(captioner="video", model="zoo:seer", prompt_hash="12ab", format=1),
            "caption_other": CaptionMaker(captioner="fuse"),
        },
        selection="main",
        rules=RULES,
        limits=LIMITS,
        tables={"selections/main": 3},
        extraction={"mode": "encode", "crf": 18},
        seed=0,
        version="0.1.0",
    )
    write_card(Folder.at(folder), manifest, index.schema)
    return manifest


def make_models(folder: Path) -> dict[str, str]:
    shape = {"block_out_channels": (32, 32), "latent_channels": 4, "scaling_factor": 0.5, "sample_size": WIDTH}
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    AutoencoderKL(down_block_types=down, up_block_types=up, **shape).save_pretrained(folder / "vae")
    AutoencoderKLTemporalDecoder(down_block_types=down, **shape).save_pretrained(folder / "vae_temporal")
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(
        CLIPConfig(
            text_config={**size, "vocab_size": 16, "max_position_embeddings": 12, "eos_token_id": 1, "bos_token_id": 0},
            vision_config={**size, "image_size": 224, "patch_size": 56},
            projection_dim=32,
        )
    )
    clip.save_pretrained(folder / "clip")
    tokenizer().save_pretrained(folder / "clip")
    CLIPImageProcessor().save_pretrained(folder / "clip")
    names = {"vae": "vae", "vae_temporal": "vae_temporal", "text": "clip", "image": "clip"}
    return {name: str(folder / value) for name, value in names.items()}


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(("<s>", "</s>", "<unk>", *WORDS))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=12, **special)


def unet(in_channels: int) -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(
        sample_size=WIDTH // 2,
        in_channels=in_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 32),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        layers_per_block=1,
        cross_attention_dim=32,
        num_attention_heads=2,
        num_frames=FRAMES,
    )
