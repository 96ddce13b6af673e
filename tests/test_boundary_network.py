"""The cut network's file: frozen outputs, the names of its columns, and that the training script writes what it trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from dailies.curation.observers import boundary, likeness
from scripts.builtin import train_cuts

# Strengths of six of 48 random rows, computed in float64 and in numpy from the four members' own weights as they were trained,
# before they became one graph. Without any one of the members one of these numbers is off by 0.12 or more.
FROZEN = {
    11: (0.999363, 0.000000, 0.000005),
    14: (0.000000, 0.007256, 0.159492),
    18: (0.000000, 0.000037, 0.749247),
    20: (0.000000, 0.308285, 0.916663),
    23: (0.000000, 0.000124, 0.855287),
    32: (0.978883, 0.000000, 0.000000),
}


def rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, len(likeness.NAMES))).astype(np.float32)


def test_the_network_that_ships_gives_the_strengths_it_was_trained_to() -> None:
    strengths = boundary.strengths(rows(7, 48))
    np.testing.assert_allclose(strengths[list(FROZEN)], list(FROZEN.values()), rtol=0, atol=1e-5)


def test_the_file_names_the_measures_it_reads_and_the_tracks_it_writes() -> None:
    session = onnxruntime.InferenceSession(str(boundary.NETWORK_FILE), providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["inputs"].split(",") == list(likeness.NAMES)
    assert [f"boundary_{name}" for name in properties["outputs"].split(",")] == list(boundary.TRACKS)
    assert properties["members"] == "4"


def test_an_output_depends_on_its_context_and_no_further() -> None:
    """Blocks of samples overlap by ``CONTEXT``: less would change strengths, more would be work for nothing."""
    before, at = rows(3, 80), 40
    after = before.copy()
    after[at] += 3
    changed = np.flatnonzero((boundary.strengths(before) != boundary.strengths(after)).any(axis=1))
    assert changed.min() >= at - boundary.CONTEXT
    assert changed.max() <= at + boundary.CONTEXT
    assert sum(train_cuts.DILATIONS) == boundary.CONTEXT


def test_what_training_saves_is_the_average_of_its_members(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = len(likeness.NAMES)
    members = [train_cuts.Network(torch.randn(size), torch.rand(size) + 0.5) for _ in range(3)]
    path = tmp_path / "boundary.onnx"
    states = [{name: value.detach() for name, value in member.state_dict().items()} for member in members]
    train_cuts.save(states, path, "random weights")
    measures = rows(1, 70)
    with torch.no_grad():
        logits = torch.stack([member(torch.from_numpy(measures)[None])[0] for member in members])
    wanted = logits.mean(0).sigmoid().numpy()
    assert wanted.std() > 0.01
    np.testing.assert_allclose(boundary.strengths(measures, path), wanted, rtol=0, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]
