"""The video UNet, its start from an image model, its folders and adapters; and what a recipe's phases make of it."""

from dailies.training.models.config import SVD, SVD_TEXT, UNetConfig
from dailies.training.models.insert import insert_temporal, widen_input
from dailies.training.models.io import load, save
from dailies.training.models.lora import add_lora, lora_weights, merge_lora
from dailies.training.models.trainable import (
    build,
    carry,
    config_of,
    given,
    given_config,
    grown,
    parameters,
    prepare,
    trained,
)
from dailies.training.models.video_unet import VideoUNet, is_last, is_temporal

__all__ = [
    "SVD",
    "SVD_TEXT",
    "UNetConfig",
    "VideoUNet",
    "add_lora",
    "build",
    "carry",
    "config_of",
    "given",
    "given_config",
    "grown",
    "insert_temporal",
    "is_last",
    "is_temporal",
    "load",
    "lora_weights",
    "merge_lora",
    "parameters",
    "prepare",
    "save",
    "trained",
    "widen_input",
]
