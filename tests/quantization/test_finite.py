"""Models that are not finite on some sample."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxfuse import ModelError, quantize
from onnxfuse.quantization.library import METHODS
from tests.lift.building import Builder
from tests.quantization.building import QUICK, images
from tests.quantization.test_quantize import near, run


def logarithms(elem_type=TensorProto.FLOAT):
    """Those of the images, between two Convs: no numbers where these are below 0."""
    b = Builder(opset=19, elem_type=elem_type)
    x = b.input("n", 3, 8, 8)
    t = b.conv(b.op("Log", x, output="logs"), 3, 4, output="features")
    b.conv(b.op("Relu", t), 4, 3, output="y")
    return b.model("y")


def positive(below):
    """Images above 0, but for one number in one of them."""
    data = np.abs(images(5)) + 0.5
    data[3, 1, 2, 2] = below
    return data


@pytest.mark.parametrize("below", [-1.0, 0.0])
@pytest.mark.parametrize("method", METHODS)
def test_names_the_tensor_and_the_run(method, below):
    """Also where another run comes first: the library would drop what is no number then."""
    with pytest.raises(ModelError, match="run 3: 'logs' is not finite, and 8 bits"):
        quantize(logarithms(), {"x": positive(below)}, method=method, equalize=False, **QUICK)


def test_names_the_tensor_and_the_run_in_float16():
    data = positive(-1.0).astype(np.float16)
    with pytest.raises(ModelError, match="run 3: 'logs' is not finite"):
        quantize(logarithms(TensorProto.FLOAT16), {"x": data}, equalize=False, **QUICK)


def test_equalization_names_the_run_too():
    with pytest.raises(ModelError, match="is not finite on run 3"):
        quantize(logarithms(), {"x": positive(-1.0)}, **QUICK)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_may_stay_float(method):
    """The largest of the numbers that a mask leaves, a constant of -inf elsewhere."""
    b = Builder()
    x = b.input("n", 3, 8, 8)
    t = b.conv(x, 3, 4)
    mask = b.constant(np.indices((6, 6)).sum(0) % 2, elem_type=TensorProto.BOOL)
    t = b.op("Where", mask, t, b.constant(-np.inf))
    b.conv(b.op("ReduceMax", t, axes=[2, 3]), 4, 5, (1, 1), output="y")
    model = b.model("y")
    result = quantize(model, {"x": images()}, method=method, equalize=False, **QUICK)
    assert [(q.count, q.total) for q in result.report.operators] == [(2, 2)]
    assert all(np.isfinite(run(result.model, {"x": images()})[0]).ravel())
    assert near(model, result.model, {"x": images()}, 10 if method == "entropy" else 20)


def test_a_clip_without_an_upper_bound_is_int8():
    b = Builder()
    x = b.input("n", 3, 8, 8)
    t = b.op("Clip", b.conv(x, 3, 4), b.constant(0.0), b.constant(np.inf))
    b.conv(t, 4, 3, output="y")
    model = b.model("y")
    result = quantize(model, {"x": images()}, **QUICK)
    assert not {"Clip", "Relu"} & {node.op_type for node in result.model.graph.node}
    assert near(model, result.model, {"x": images()})
    onnx.checker.check_model(result.model, full_check=True)
