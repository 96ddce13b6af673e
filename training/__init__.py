"""Training: staged video diffusion on exported shards. The trainer lands with the next release."""
