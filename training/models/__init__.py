"""The video UNet, its start from an image model, its folders and adapters; and what a recipe's phases make of it."""

from training.models.config import SVD, SVD_TEXT, UNetConfig
from training.models.folder import load, save
from training.models.insert import insert_temporal, widen_input
from training.models.lora import add_lora, lora_weights, merge_lora
from training.models.phases import build, carry, config_of, given, given_config, grown, parameters, prepare, trained
from training.models.video_unet import VideoUNet, is_last, is_temporal

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
