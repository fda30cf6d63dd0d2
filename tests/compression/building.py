"""Models with one layer, or a few, to be compressed."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.lift.building import Builder, same

DTYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def chain(opset=21, channels=48, elem_type=TensorProto.FLOAT, seed=0, **settings):
    """Two Convs with a Relu between them: weights named "first" and "second"."""
    b = Builder(opset, elem_type, seed)
    x = b.input("n", channels, 6, 6)
    weights = [b.random(channels, channels, 3, 3, name=name) for name in ("first", "second")]
    x = b.op("Conv", x, weights[0], b.random(channels), pads=same((3, 3)))
    return b.model(b.op("Conv", b.op("Relu", x), weights[1], output="y", pads=[1] * 4), **settings)


def picture(channels=48, size=6, seed=0, dtype=np.float32):
    return {
        "x": np.random.default_rng(seed)
        .standard_normal((1, channels, size, size), dtype=np.float32)
        .astype(dtype)
    }


def bodies_model(ir_version=10):
    """An If whose branches have a Conv each, with a weight of its own and with an outer one."""
    b = Builder(21)
    x = b.input(1, 48, 6, 6)
    condition = b.input(name="condition", elem_type=TensorProto.BOOL)
    b.random(48, 48, 3, 3, name="outer")
    inner = numpy_helper.from_array(b.values(48, 48, 3, 3).astype(np.float32), "inner")
    branches = {}
    for key, name, given in (("then_branch", "inner", [inner]), ("else_branch", "outer", [])):
        node = helper.make_node("Conv", [x, name], [f"{name}_y"], name=f"{name}_conv")
        info = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 48, 4, 4])
        branches[key] = helper.make_graph([node], key, [], [info], given)
    return b.model(b.op("If", condition, output="y", **branches), ir_version=ir_version)


def reasons(result):
    return {left.weight: left.reason for left in result.report.left}


def compressed(result):
    return {weight.weight: weight for weight in result.report.compressed}
