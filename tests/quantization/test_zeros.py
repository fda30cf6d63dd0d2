"""Scales of weights without anything in them."""

import numpy as np
import onnxruntime as ort
import pytest

from onnxfuse import quantize
from tests.lift.building import Builder
from tests.quantization.building import QUICK, constant


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("dead", [(1,), (0, 1, 2, 3)], ids=["one", "all"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_the_bias_of_a_channel_of_zeros_stays(bits, dead, operator):
    """With the library's scale of 1 it would be a whole number of the steps of the input."""
    b = Builder()
    x = b.input("n", 3, 8, 8)
    weight = b.values(4, 3, 3, 3) / 1000
    weight[list(dead)] = 0
    weight = weight if operator == "Conv" else weight.swapaxes(0, 1)
    bias = b.constant(np.array([0.1, 0.4, -0.3, 0.2]))
    b.op(operator, x, b.constant(weight), bias, output="y")
    model = b.model("y")
    data = np.random.default_rng(0).uniform(0, 255, (4, 3, 8, 8)).astype(np.float32)
    made = quantize(model, {"x": data}, weight_bits=bits, equalize=False, **QUICK).model
    options = ort.SessionOptions()  # as it is written: products of 8 bits may saturate
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected, found = (
        ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])
        .run(None, {"x": data})[0]
        .astype(np.float64)[:, list(dead)]
        for m in (model, made)
    )
    step = constant(made, "y_scale")
    # half a step of the output, and of the bias: the input has steps of 1
    assert np.abs(found - expected).max() <= 0.51 * step + max(np.abs(weight).max() / 127, 2**-10)
