"""LAION's aesthetic heads: their files, and what they make of an embedding.

Two kinds, told by the names in their state dict, as LAION publishes them:

- linear (LAION-AI/aesthetic-predictor, ``sa_0_4_vit_l_14_linear.pth``): ``weight`` (1, D), ``bias`` (1);
- MLP (christophschuhmann/improved-aesthetic-predictor, ``sac+logos+ava1-l14-linearMSE.pth``): ``layers.0|2|4|6|7`` of
  ``weight`` and ``bias``, D to 1024, 128, 64, 16, 1, with dropout between and no activation.

Both take an embedding of length 1.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import UsageError
from dailies.curation.scorers import state_dict
from dailies.curation.scorers.state_dict import SUFFIXES, read_state

MLP = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.7")
WIDTHS = (1024, 128, 64, 16, 1)  # of what the MLP's layers make


def head_file(name: str) -> Path:
    """Return the file with a head's weights: ``name`` itself, or the only such file of a folder. Raises ``UsageError``."""
    path = Path(name)
    files = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file() or files[0].suffix not in SUFFIXES:
        raise UsageError(f"head={name!r}: no such file; give one with a head's weights ({', '.join(SUFFIXES)})")
    return files[0]


def fingerprint(name: str) -> str:
    """Return the sha256 of a head's file."""
    return state_dict.fingerprint(head_file(name))


class Head:
    """A head at work: embeddings (N, D) of length 1 to scores (N,). ``width``: D."""

    def __init__(self, name: str) -> None:
        state = read_state(head_file(name), "head")
        layers = [""] if set(state) == {"weight", "bias"} else [f"{layer}." for layer in MLP]
        if set(state) != {f"{layer}{part}" for layer in layers for part in ("weight", "bias")}:
            raise UsageError(f"head={name!r}: not a head that is known, LAION's linear one or its MLP")
        read = [(state[f"{layer}weight"], state[f"{layer}bias"]) for layer in layers]
        shapes = [tuple(tensor.shape) for pair in read for tensor in pair]
        self.width = int(shapes[0][-1]) if shapes[0] else 0
        widths = (self.width, *(WIDTHS if len(layers) > 1 else (1,)))
        if shapes != [shape for into, out in pairwise(widths) for shape in ((out, into), (out,))]:
            raise UsageError(
                f"head={name!r}: its tensors are {', '.join(map(str, shapes))}; LAION's go from the embedding to a single "
                f"number, at once or by {', '.join(map(str, WIDTHS[:-1]))}"
            )
        if not all(tensor.is_floating_point() and tensor.is_contiguous() for pair in read for tensor in pair):
            raise UsageError(f"head={name!r}: its tensors are not plain ones of floating point; save it in float32")
        self._layers = [(weight.float(), bias.float()) for weight, bias in read]

    def __call__(self, unit_ND: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: N803
        import torch

        with torch.inference_mode():
            x_ND = torch.tensor(unit_ND)  # noqa: N806
            for weight, bias in self._layers:
                x_ND = torch.nn.functional.linear(x_ND, weight, bias)  # noqa: N806
            return np.asarray(x_ND[:, 0].double().numpy())
