"""State dicts that people fetch as a file: names and tensors, read so that nothing in the file runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dailies.curation.errors import UsageError, stopping_error

SUFFIXES = (".pth", ".pt", ".safetensors")


def read_state(path: str | Path, parameter: str) -> dict[str, Any]:
    """Return names and tensors. ``parameter``: the one that names the file.

    Raises ``UsageError`` for a file that holds something else; a pickle that calls for code is refused unread.
    """
    import torch
    from safetensors.torch import load_file

    where = f"{parameter}={str(path)!r}"
    try:
        if Path(path).suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its opcodes happen to meet
        if (stopping := stopping_error(error)) is not None:
            raise stopping from error
        raise UsageError(
            f"{where}: holds no weights that can be read ({type(error).__name__}): it is not whole, or holds more than "
            "tensors; get it again, or write it by torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(each, torch.Tensor) for each in state.values()):
        raise UsageError(f"{where}: not a state dict, as torch.save(model.state_dict(), path) writes one")
    for name, tensor in state.items():
        if not _is_stored(tensor):
            raise UsageError(f"{where}: {name} is larger than what the file holds of it; get it whole")
    return state


def _is_stored(tensor: Any) -> bool:
    """Return whether each of a tensor's numbers is in its file: one that is expanded may claim terabytes of a few bytes."""
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    stored: int = tensor.untyped_storage().nbytes()
    return bool(tensor.numel() * tensor.element_size() <= stored)


def fingerprint(path: str | Path) -> str:
    """Return a file's sha256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
