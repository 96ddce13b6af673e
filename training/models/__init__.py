"""The video UNet, its start from an image model, its folders and adapters. What a phase trains of it: ``models.trainable``."""

from dailies.training.models.config import SVD, SVD_TEXT, UNetConfig
from dailies.training.models.insert import insert_temporal, widen_input
from dailies.training.models.io import load, load_pretrained, pretrained_config
from dailies.training.models.lora import LORA_TARGETS, add_lora, lora_weights, merge_lora, save_lora
from dailies.training.models.video_unet import VideoUNet, count_parameters, is_last, is_temporal

__all__ = [
    "LORA_TARGETS",
    "SVD",
    "SVD_TEXT",
    "UNetConfig",
    "VideoUNet",
    "add_lora",
    "count_parameters",
    "files",
    "insert_temporal",
    "is_last",
    "is_temporal",
    "load",
    "load_pretrained",
    "lora_weights",
    "merge_lora",
    "pixels",
    "pretrained_config",
    "save_lora",
    "trainable",
    "widen_input",
]
