"""The ONNX file of the cut network: members that were trained apart, as one graph that averages their logits.

Members run side by side as groups of channels, which makes one grouped convolution of each layer. Their means and deviations
go into the first weights, and the average over members into the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, NDArray[np.float64]]
OPSET, IR_VERSION = 17, 8  # onnxruntime has read these since 1.12


def build(
    members: Sequence[Arrays], *, dilations: Sequence[int], inputs: Sequence[str], outputs: Sequence[str], note: str
) -> onnx.ModelProto:
    """Returns a graph from ``measures`` (n, len(inputs)) to ``strengths`` (n, len(outputs)), both float32.

    ``members``: state dicts of ``train_cuts.Network``. ``inputs``, ``outputs``: names of the columns, kept in the file's
    metadata. ``note``: how it was trained.
    """
    graph = helper.make_graph(
        _nodes(len(members), dilations),
        "boundary",
        [helper.make_tensor_value_info("measures", TensorProto.FLOAT, ["n", len(inputs)])],
        [helper.make_tensor_value_info("strengths", TensorProto.FLOAT, ["n", len(outputs)])],
        [numpy_helper.from_array(array, name) for name, array in _weights(members, len(dilations)).items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dailies train_cuts",
        doc_string=note,
    )
    listed = {"inputs": ",".join(inputs), "outputs": ",".join(outputs), "members": str(len(members))}
    helper.set_model_props(model, listed)
    onnx.checker.check_model(model, full_check=True)
    return model


def _nodes(members: int, dilations: Sequence[int]) -> list[onnx.NodeProto]:
    node = helper.make_node
    nodes = [
        node("Gemm", ["measures", "enter.weight", "enter.bias"], ["entered"]),
        node("Relu", ["entered"], ["rows"]),
        node("Transpose", ["rows"], ["columns"], perm=[1, 0]),
        node("Unsqueeze", ["columns", "batch_axis"], ["x0"]),  # (1, members x width, n)
    ]
    for i, dilation in enumerate(dilations):
        shape: dict[str, Any] = {"kernel_shape": [3], "dilations": [dilation], "pads": [dilation] * 2, "group": members}
        nodes += [
            node("Conv", [f"x{i}", f"layers.{i}.weight", f"layers.{i}.bias"], [f"convolved{i}"], **shape),
            node("Relu", [f"convolved{i}"], [f"added{i}"]),
            node("Add", [f"x{i}", f"added{i}"], [f"x{i + 1}"]),
        ]
    return [
        *nodes,
        node("Squeeze", [f"x{len(dilations)}", "batch_axis"], ["last"]),
        node("Transpose", ["last"], ["last_rows"], perm=[1, 0]),
        node("Gemm", ["last_rows", "leave.weight", "leave.bias"], ["logits"]),
        node("Sigmoid", ["logits"], ["strengths"]),
    ]


def _weights(members: Sequence[Arrays], layers: int) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The graph's initializers by name; folded in float64, kept in float32."""
    enter = [member["enter.weight"] / member["deviation"] for member in members]  # (width, inputs)
    bias = [member["enter.bias"] - weight @ member["mean"] for member, weight in zip(members, enter, strict=True)]
    arrays = {
        "enter.weight": np.concatenate(enter).T,
        "enter.bias": np.concatenate(bias),
        "leave.weight": np.concatenate([member["leave.weight"].T for member in members]) / len(members),
        "leave.bias": np.mean([member["leave.bias"] for member in members], axis=0),
    }
    for name in (f"layers.{i}.{kind}" for i in range(layers) for kind in ("weight", "bias")):
        arrays[name] = np.concatenate([member[name] for member in members])
    weights: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()
    }
    return weights | {"batch_axis": np.array([0], np.int64)}
