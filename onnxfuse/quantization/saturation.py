"""Whether ONNX Runtime's sums of int8 products saturate on this machine."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.runtime import load_model, open_session

_CHANNELS = 64
_LARGEST = 255, 127
"""Of an activation and of a weight. Two products are 64,770, and int16 ends at 32,767."""


@cache
def saturates() -> bool:
    """Whether products of uint8 activations and int8 weights are added with saturation here.

    Processors without an instruction for dot products of bytes (AVX-512 VNNI, AVX-VNNI, AMX, those
    of ARM) multiply pairs of bytes and add them in int16, which can overflow. This is found by
    running a pointwise QLinearConv (ONNX operator, opset 10) of the largest numbers.
    """
    images = np.full((1, _CHANNELS, 16, 16), _LARGEST[0], np.uint8)
    with load_model(_largest_products(), "the test of saturation") as model:
        session = open_session(model, "CPUExecutionProvider", threads=1)
        (found,) = session.run({"x": images})
    return bool((found != _LARGEST[0]).any())


def _largest_products() -> onnx.ModelProto:
    """A QLinearConv whose outputs are all 255, from inputs that are."""
    weight = np.full((_CHANNELS, _CHANNELS, 1, 1), _LARGEST[1], np.int8)
    constants = {
        "x_scale": np.float32(1),
        "x_zero_point": np.uint8(0),
        "w": weight,
        "w_scale": np.float32(1),
        "w_zero_point": np.int8(0),
        "y_scale": np.float32(_CHANNELS * _LARGEST[1]),
        "y_zero_point": np.uint8(0),
    }
    shape = (1, _CHANNELS, 16, 16)
    x, y = (helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in "xy")
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"])
    made = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph([node], "largest_products", [x], [y], made)
    return helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])
