"""dailies: raw video in; a curated, captioned dataset, a video diffusion model and a model zoo out."""
