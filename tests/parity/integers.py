"""A small network in float32, and the same in int8 as tools write it."""

import numpy as np
from onnx import TensorProto

from tests.lift.building import Builder, same

SIDE = 8
CHANNELS = 4
ACTIVATIONS = (0.05, 0.04, 0.06)
"""Scales of the input, of what is between the layers, and of the output."""


def weights():
    rng = np.random.default_rng(2)
    codes = rng.integers(-60, 61, (2, CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
    scales = rng.uniform(0.001, 0.004, (2, CHANNELS)).astype(np.float32)
    return codes, scales, rng.integers(-500, 500, (2, CHANNELS)).astype(np.int32)


def network():
    """Conv, Relu, Conv in float32."""
    codes, scales, biases = weights()
    b = Builder(opset=17)
    x = b.input("n", CHANNELS, SIDE, SIDE)
    for layer in range(2):
        factor = scales[layer].reshape(-1, 1, 1, 1).astype(float)
        weight = b.constant(codes[layer] * factor)
        bias = b.constant(biases[layer] * factor.ravel() * ACTIVATIONS[layer])
        x = b.op("Conv", x, weight, bias, pads=same((3, 3)), output="y" if layer else "")
        x = x if layer else b.op("Relu", x)
    return b.model("y")


def quantized(elem_type=TensorProto.UINT8):
    """The same with QuantizeLinear and DequantizeLinear around each layer, scales by channel."""
    codes, scales, biases = weights()
    zero = 128 if elem_type == TensorProto.UINT8 else 0
    b = Builder(opset=17)

    def rounded(x, number, output=""):
        scale = b.constant(ACTIVATIONS[number], f"scale_{number}")
        point = b.constant(zero, f"zero_{number}", elem_type=elem_type)
        code = b.op("QuantizeLinear", x, scale, point)
        return b.op("DequantizeLinear", code, scale, point, output=output)

    x = rounded(b.input("n", CHANNELS, SIDE, SIDE), 0)
    for layer in range(2):
        weight = b.constant(codes[layer], f"codes_{layer}", elem_type=TensorProto.INT8)
        scale = b.constant(scales[layer], f"scales_{layer}")
        bias = b.constant(biases[layer], f"biases_{layer}", elem_type=TensorProto.INT32)
        factor = b.constant(scales[layer] * ACTIVATIONS[layer], f"factors_{layer}")
        kernel = b.op("DequantizeLinear", weight, scale, axis=0)
        shift = b.op("DequantizeLinear", bias, factor, axis=0)
        x = b.op("Conv", x, kernel, shift, pads=same((3, 3)))
        x = rounded(x if layer else b.op("Relu", x), layer + 1, output="y" if layer else "")
    return b.model("y")


def images(count=3, seed=5):
    """Images that the scales are for."""
    rng = np.random.default_rng(seed)
    shape = (count, CHANNELS, SIDE, SIDE)
    return np.clip(rng.normal(0, 1.5, shape), -6, 6).astype(np.float32)
