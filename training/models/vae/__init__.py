"""VAEs: a small image VAE and its training, inflation to a temporal decoder, and folders in diffusers' format."""

from dailies.training.models.vae.inflate import inflate
from dailies.training.models.vae.io import load_temporal, load_vae, save_half, save_whole, vae_config

__all__ = ["inflate", "load_temporal", "load_vae", "save_half", "save_whole", "vae_config"]
