"""Layers that stay float are float in ONNX Runtime, too."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxfuse import quantize
from tests.lift.building import Builder
from tests.quantization.building import QUICK, images, makers
from tests.quantization.test_quantize import near

LAYERS = ["Conv", "grouped", "ConvTranspose", "Gemm", "transposed"]


def with_an_outlier(b, *shape):
    """A weight for which 255 steps are too few."""
    weight = 0.01 * b.values(*shape)
    weight[(0,) * len(shape)] = 5.0
    return b.constant(weight)


def middle(kind):
    """A layer called middle between two others."""
    b = Builder()
    if kind in ("Gemm", "transposed"):
        t = b.op("Relu", b.op("Gemm", b.input("n", 8), b.random(8, 8)))
        shape, options = ((6, 8), {"transB": 1}) if kind == "transposed" else ((8, 6), {})
        t = b.op("Gemm", t, with_an_outlier(b, *shape), b.random(6), output="middle", **options)
        b.op("Gemm", b.op("Relu", t), b.random(6, 5), output="y")
        return b.model("y")
    t = b.op("Relu", b.conv(b.input("n", 3, 8, 8), 3, 8))
    shape = (8, 6, 3, 3) if kind == "ConvTranspose" else (6, 8, 3, 3)
    group = {"group": 2} if kind == "grouped" else {}
    if kind == "grouped":
        shape = 6, 4, 3, 3
    operator = "ConvTranspose" if kind == "ConvTranspose" else "Conv"
    t = b.op(operator, t, with_an_outlier(b, *shape), b.random(6), output="middle", **group)
    b.conv(b.op("Relu", t), 6, 5, output="y")
    return b.model("y")


def inputs(kind):
    flat = kind in ("Gemm", "transposed")
    return {"x": images().reshape(-1, 8) if flat else images()}


def weights_in_the_runtime(model, folder):
    """The element types of weights that convolutions and products read once it is loaded."""
    path, options = folder / "optimized.onnx", ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    made = onnx.load(path).graph
    kinds = {tensor.name: tensor.data_type for tensor in made.initializer if len(tensor.dims) > 1}
    return [kinds[name] for node in made.node for name in node.input if name in kinds]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_between_others_stays_float(kind, tmp_path):
    """ONNX Runtime would give it int8 weights with one scale for all channels."""
    model, data = middle(kind), inputs(kind)
    result = quantize(model, data, keep=["middle"], equalize=False, **QUICK)
    kinds = weights_in_the_runtime(result.model, tmp_path)
    assert kinds.count(onnx.TensorProto.FLOAT) == 1
    assert near(model, result.model, data, 25)
    onnx.checker.check_model(result.model, full_check=True)


def test_what_it_reads_is_what_the_others_read():
    result = quantize(middle("Conv"), inputs("Conv"), keep=["middle"], equalize=False, **QUICK)
    own = makers(result.model)[makers(result.model)["middle"].input[0]]
    assert own.op_type == "DequantizeLinear"
    held = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    quantizer = makers(result.model)[own.input[0]]
    for alike, one in zip(own.input[1:], quantizer.input[1:], strict=True):
        assert held[alike].shape == (8,)
        np.testing.assert_array_equal(held[alike], held[one])
    read = {name for node in result.model.graph.node for name in node.input} | {"y"}
    assert all(read.intersection(node.output) for node in result.model.graph.node)
