"""State dicts that people fetch as a file: names and tensors, read so that nothing in the file runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dailies.curation.errors import UsageError

SUFFIXES = (".pth", ".pt", ".safetensors")


def read_state(path: str | Path, parameter: str) -> dict[str, Any]:
    """Return names and tensors. ``parameter``: the one that names the file.

    Raises ``UsageError`` for a file that holds something else; a pickle that calls for code is refused unread.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if Path(path).suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise UsageError(f"{parameter}={str(path)!r}: holds no weights that can be read: {said}") from error
    if not isinstance(state, dict) or not all(isinstance(each, torch.Tensor) for each in state.values()):
        raise UsageError(
            f"{parameter}={str(path)!r}: not a state dict, as torch.save(model.state_dict(), path) writes one"
        )
    return state


def fingerprint(path: str | Path) -> str:
    """Return a file's sha256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
