"""The cut network in onnxruntime beside the same sums in numpy, on one thread: milliseconds, their ratio, the difference.

    python benchmarks/boundary_network.py [--runs 15] [--json]

Both read ``curation/observers/boundary.onnx``. Sizes are samples of a source, of which there are 12 a second: a clip of eight
seconds, a minute, and a whole block of the observer. Runs alternate; medians. Also: what loading costs a process once.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before numpy is read

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation.observers import boundary, likeness

Floats = NDArray[np.float32]
SIZES = (96, 720, boundary.BLOCK)


class Numpy:
    """The graph's sums in numpy: members along the first axis, a dilated convolution as three matrix products."""

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(path).graph
        arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        convolutions = [
            {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            for node in graph.node
            if node.op_type == "Conv"
        ]
        members = convolutions[0]["group"]
        inputs, outputs = len(arrays["enter.weight"]), len(arrays["leave.bias"])
        self.dilations = [each["dilations"][0] for each in convolutions]
        self.enter = arrays["enter.weight"].reshape(inputs, members, -1).transpose(1, 0, 2).copy()
        self.enter_bias = arrays["enter.bias"].reshape(members, 1, -1)
        width = self.enter.shape[2]
        self.layers = [
            (
                arrays[f"layers.{i}.weight"].reshape(members, width, width, 3).transpose(3, 0, 2, 1).copy(),
                arrays[f"layers.{i}.bias"].reshape(members, 1, width),
            )
            for i in range(len(convolutions))
        ]
        self.leave, self.leave_bias = arrays["leave.weight"].reshape(members, width, outputs), arrays["leave.bias"]

    def __call__(self, measures: Floats) -> Floats:
        x = np.maximum(measures @ self.enter + self.enter_bias, 0)
        for (weights, bias), dilation in zip(self.layers, self.dilations, strict=True):
            y = x @ weights[1] + bias
            y[:, dilation:] += x[:, :-dilation] @ weights[0]
            y[:, :-dilation] += x[:, dilation:] @ weights[2]
            x = x + np.maximum(y, 0)
        logits = (x @ self.leave).sum(axis=0) + self.leave_bias
        return np.asarray(1 / (1 + np.exp(np.minimum(-logits, 80))), np.float32)


def milliseconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def compare(size: int, by_hand: Numpy, runs: int) -> dict[str, float]:
    """Figures of one number of samples."""
    measures = np.random.default_rng(size).uniform(-1, 1, (size, len(likeness.NAMES))).astype(np.float32)
    difference = float(np.abs(boundary.strengths(measures) - by_hand(measures)).max())
    taken = [
        (milliseconds(lambda: boundary.strengths(measures)), milliseconds(lambda: by_hand(measures)))
        for _ in range(runs)
    ]
    ours, theirs = (statistics.median(each) for each in zip(*taken, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in taken)
    return {"samples": size, "onnxruntime_ms": ours, "numpy_ms": theirs, "ratio": ratio, "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loading = {
        "import_ms": milliseconds(lambda: __import__("onnxruntime")),
        "first_ms": milliseconds(lambda: boundary.strengths(np.zeros((1, len(likeness.NAMES)), np.float32))),
    }
    by_hand = Numpy(boundary.NETWORK_FILE)
    rows = [compare(size, by_hand, options.runs) for size in SIZES]
    if options.json:
        print(json.dumps({"loading": loading, "sizes": rows}))
        return
    print(f"import onnxruntime {loading['import_ms']:.0f} ms, session and first run {loading['first_ms']:.0f} ms, once")
    print("samples  onnxruntime ms  numpy ms  numpy / onnxruntime  largest difference")
    for row in rows:
        print(
            f"{row['samples']:7d}  {row['onnxruntime_ms']:14.2f}  {row['numpy_ms']:8.2f}"
            f"  {row['ratio']:19.2f}  {row['difference']:18.1e}"
        )


if __name__ == "__main__":
    main()
