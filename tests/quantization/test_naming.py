"""Names that onnxruntime.quantization would add, where a model has them already."""

import numpy as np
import onnx
import pytest

from onnxfuse import quantize
from tests.lift.building import Builder
from tests.quantization.building import QUICK
from tests.quantization.test_quantize import near

TAKEN = [
    "x_scale",
    "x_zero_point",
    "x_QuantizeLinear_Input",
    "x_DequantizeLinear_Output",
    "w_quantized",
    "w_scale",
    "w_zero_point",
    "x_ReduceMin",
]


def data():
    return np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float32)


def model_of(tensor="t", nodes=("first", "second")):
    b = Builder()
    x = b.input("n", 4, 8, 8)
    b.op("Conv", x, b.random(4, 4, 3, 3, name="w"), output=tensor)
    b.op("Conv", b.op("Tanh", tensor), b.random(4, 4, 3, 3, name="v"), output="y")
    model = b.model("y")
    for node, name in zip((model.graph.node[0], model.graph.node[2]), nodes, strict=True):
        node.name = name
    return model


@pytest.mark.parametrize("name", TAKEN)
def test_a_tensor_of_that_name(name):
    model = model_of(name)
    made = quantize(model, {"x": data()}, weight_bits=7, **QUICK).model
    assert any(name in node.output for node in made.graph.node)
    assert near(model, made, {"x": data()}, 25)
    onnx.checker.check_model(made, full_check=True)


def test_nodes_of_that_name():
    model = model_of(nodes=("x_QuantizeLinear", "x_DequantizeLinear"))
    made = quantize(model, {"x": data()}, weight_bits=7, **QUICK).model
    assert [node.name for node in made.graph.node if node.op_type == "Conv"] == [
        "x_QuantizeLinear",
        "x_DequantizeLinear",
    ]
    assert near(model, made, {"x": data()}, 25)


def test_an_output_that_is_an_input():
    model = model_of()
    model.graph.output.append(model.graph.input[0])
    made = quantize(model, {"x": data()}, weight_bits=7, **QUICK).model
    assert list(made.graph.output) == list(model.graph.output)
    assert near(model, made, {"x": data()}, 25)
