"""Tiny networks to quantize, and what is in a quantized one."""

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.lift.building import Builder, same

QUICK = {"compare": False}


def images(count=4, channels=3, size=8, seed=0):
    """(count, channels, size, size), float32."""
    shape = count, channels, size, size
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(opset=17, elem_type=TensorProto.FLOAT, batch="n", **options):
    """Two branches that fold into one Conv, a Relu, another Conv, a pool and a Gemm."""
    b = Builder(opset=opset, elem_type=elem_type)
    x = b.input(batch, 3, 8, 8)
    wide = b.conv(x, 3, 8, (3, 3), pads=same((3, 3)))
    both = b.op("Add", wide, b.conv(x, 3, 8, (1, 1)))
    t = b.op("Relu", both, output="features")
    t = b.op("Relu", b.conv(t, 8, 8, (3, 3), output="second"))
    t = b.op("Flatten", b.op("GlobalAveragePool", t))
    b.op("Gemm", t, b.random(8, 5), b.random(5), output="y")
    return b.model("y", **options)


def operators(model):
    return [node.op_type for node in model.graph.node]


def constant(model, name):
    (found,) = (t for t in model.graph.initializer if t.name == name)
    return numpy_helper.to_array(found)


def makers(model):
    return {name: node for node in model.graph.node for name in node.output}
