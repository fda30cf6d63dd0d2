"""Whether what is to be int8 holds finite numbers, on all samples.

    sum of 0 x = 0 where every x is finite, and else no number

Eight bits have no steps for others: their ranges are no numbers, or silently those of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfuse import io
from onnxfuse.calibration import Samples
from onnxfuse.graph import TensorType
from onnxfuse.messages import all_names
from onnxfuse.runtime import load_model, open_session
from onnxfuse.shapes import infer_types

_KINDS: dict[int, type] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float16}


@dataclass(frozen=True)
class Infinite:
    """A tensor that holds a number that is not finite.

    Attributes:
        tensor: Its name.
        run: The run of the samples in which it does.
    """

    tensor: str
    run: int


def infinite(
    model: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    samples: Samples,
    tell: Callable[[int], None],
) -> Infinite | None:
    """The first tensor, on the first run, that nodes read or make and that is not finite.

    Args:
        model: The model, of opset 13 or later, its data in it.
        nodes: Nodes of it.
        samples: What it is run on.
        tell: Told how many samples have been run.

    Raises:
        ModelError: A sample cannot be read.
        RunError: The model does not run on one.
    """
    types = infer_types(model)
    held = {tensor.name for tensor in model.graph.initializer}
    named = (name for node in nodes for name in (*node.input, *node.output) if name not in held)
    kinds = {name: types.get(name, TensorType()).elem_type for name in named}
    asked = {name: kind for name, kind in kinds.items() if kind in _KINDS}
    with load_model(io.Source(_summing(model, asked)), "the model") as loaded:
        session = open_session(loaded, "CPUExecutionProvider")
        for number, feeds in enumerate(samples):
            tell(number)
            for name, value in zip(asked, session.run(feeds), strict=True):
                if value != 0:
                    return Infinite(name, number)
    return None


def _summing(model: onnx.ModelProto, kinds: dict[str, int]) -> onnx.ModelProto:
    """A copy whose outputs are sums of 0 x for tensors x, which are float or float16."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, prefix = made.graph, "finite"
    while any(name.startswith(prefix) for name in all_names(graph)):
        prefix += "_"
    del graph.output[:]
    for kind in sorted(set(kinds.values())):
        zero = numpy_helper.from_array(np.zeros((), _KINDS[kind]), f"{prefix}_zero_{kind}")
        graph.initializer.append(zero)
    for number, (name, kind) in enumerate(kinds.items()):
        zeros, total = f"{prefix}_zeros_{number}", f"{prefix}_{number}"
        graph.node.append(helper.make_node("Mul", [name, f"{prefix}_zero_{kind}"], [zeros]))
        graph.node.append(helper.make_node("ReduceSum", [zeros], [total], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(total, kind, []))
    return made
