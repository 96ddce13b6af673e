"""Training: staged video diffusion on exported shards. Importing the package loads nothing heavy."""
