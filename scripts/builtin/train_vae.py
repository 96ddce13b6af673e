"""Train ``zoo/builtin/vae-world`` on the rendered world, or measure it.

::

    python -m scripts.builtin.train_vae                 # train, write both folders, print PSNR
    python -m scripts.builtin.train_vae --measure       # only print PSNR on held-out frames

Seeds from 8 000 000 are the VAE's: those it trains on, and those from 8 900 000, which it never sees, to measure.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

from dailies.curation import world
from dailies.training.models import pixels
from dailies.training.models.vae.inflate import inflate
from dailies.training.models.vae.io import load_vae, save_half
from dailies.training.models.vae.vae import (
    build_vae,
    fit_vae,
    harden_norms,
    reconstruct,
    set_scale,
    set_threads,
    soften_norms,
    start_as_blur,
    stretch_latents,
)

SEED, HELD_OUT = 8_000_000, 8_900_000
SIZE = (112, 64)
DEVIATION = 5.0  # of the latents, as of SD's
FOLDER = Path(__file__).resolve().parents[2] / "zoo" / "builtin"

CARD = """---
license: apache-2.0
library_name: diffusers
---

# {name}

**It knows the rendered world only**: flat shapes on textured grounds, as `dailies` draws them. Of photographs it keeps
rough colours and little else. It is here so that the quickstart and the tests run without a network.

A diffusers `{kind}`: 4 latent channels, one latent for 4×4 px, `scaling_factor` {factor:g} for unit variance. {more}

- Trained by `python -m scripts.builtin.train_vae` ({steps} steps on one CPU core) on frames of world seeds from {seed}.
- PSNR {psnr:.2f} dB over 300 held-out frames at 112×64 px: `python -m scripts.builtin.train_vae --measure`.
- float16 on disk; load it in float32: its norms read values too small for float16 arithmetic.
- Loss: L1 on pixels and on their differences, a slight KL. No perceptual or adversarial loss, so fine texture blurs.
"""
TEMPORAL = (
    "The encoder is that of `vae-world`; the decoder's spatial layers are too, and its temporal layers are at their identity "
    "start, so it decodes each frame as `vae-world` does. `StableVideoDiffusionPipeline` takes it."
)


def render(seed: int, videos: int, *, size: tuple[int, int] = SIZE, **script: object) -> pixels.Pixels:
    """Frames (N, h, w, 3) of rendered videos at 3 frames a second, text and flashes and blends among them."""
    parts = []
    for number in range(videos):
        drawn = world.write_script(
            seed + number,
            shots=4,
            fps=3,
            shot_frames=(4, 8),
            transition_frames=(1, 2),
            **script,  # type: ignore[arg-type]
        )
        frames = np.stack(list(world.frames(drawn)))
        parts.append(pixels.crop(pixels.cover(frames, size), size))
    return np.concatenate(parts)


def measure(folder: Path) -> float:
    """PSNR in dB over 300 held-out frames at 112×64 px."""
    frames = render(HELD_OUT, 14)[:300]
    return pixels.psnr(frames, reconstruct(load_vae(folder), frames))


def train(folder: Path, *, steps: int, seed: int = 0) -> None:
    """Train and write ``folder``/vae-world and ``folder``/vae-world-temporal. About 7 minutes for 1100 steps on a free core."""
    begun = time.monotonic()
    frames = render(SEED, 240)
    print(f"rendered {len(frames)} frames in {time.monotonic() - begun:.0f} s", flush=True)
    vae = build_vae(seed)
    start_as_blur(vae)
    soften_norms(vae)

    def say(step: int, losses: dict[str, float]) -> None:
        words = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        print(f"step {step:5d}  {time.monotonic() - begun:4.0f} s  {words}", flush=True)

    fit_vae(vae, frames, steps=steps, seed=seed, say=say)
    harden_norms(vae)
    factor = set_scale(vae, frames[:: max(1, len(frames) // 500)])
    stretch_latents(vae, 2.0 ** round(math.log2(DEVIATION * factor)))
    print(f"scaling factor {vae.config.scaling_factor:.4f}")
    save_half(vae, folder / "vae-world")
    save_half(inflate(vae), folder / "vae-world-temporal")
    value = measure(folder / "vae-world")
    write_cards(folder, steps, value)
    print(f"PSNR {value:.2f} dB over held-out frames")


def write_cards(folder: Path, steps: int, psnr: float) -> None:
    """README.md beside both models."""
    factor = load_vae(folder / "vae-world").config.scaling_factor
    for name, kind, more in (
        ("vae-world", "AutoencoderKL", ""),
        ("vae-world-temporal", "AutoencoderKLTemporalDecoder", TEMPORAL),
    ):
        text = CARD.format(name=name, kind=kind, more=more, factor=factor, steps=steps, seed=SEED, psnr=psnr)
        (folder / name / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="only print PSNR of what is there")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.measure:
        print(f"PSNR {measure(options.out / 'vae-world'):.2f} dB over held-out frames")
    else:
        train(options.out, steps=options.steps)


if __name__ == "__main__":
    main()
