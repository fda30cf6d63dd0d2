"""Layers that onnxruntime.quantization gets wrong, or cannot quantize, as they are."""

import numpy as np
import onnx
import pytest

from onnxfuse import ModelError, quantize
from onnxfuse.quantization.exclusions import left_float
from onnxfuse.quantization.naming import named
from tests.lift.building import Builder
from tests.quantization.building import QUICK, operators
from tests.quantization.test_quantize import near


def counts(result):
    return {q.operator: (q.count, q.total) for q in result.report.operators}


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 1), (3, 5), (1,), ()], ids=str)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (-2.0, 0.25)])
def test_gemm_with_every_bias(shape, alpha, beta):
    """The library takes a bias for one number a channel, and forgets what it is multiplied with."""
    b = Builder()
    x = b.input(3, 16)
    bias = b.random(*shape, low=2.0, high=6.0)
    b.op("Gemm", x, b.random(16, 5), bias, alpha=alpha, beta=beta, output="y")
    model = b.model("y")
    data = np.random.default_rng(0).standard_normal((9, 16)).astype(np.float32) / 8
    result = quantize(model, {"x": data}, weight_bits=7, **QUICK)
    assert counts(result) == {"Gemm": (1, 1)}
    assert near(model, result.model, {"x": data[:3]}, 25)
    onnx.checker.check_model(result.model, full_check=True)


def test_gemm_of_two_inputs():
    b = Builder()
    x, w = b.input(3, 16), b.input(16, 5, name="w")
    b.op("Gemm", x, w, b.random(5, low=2.0, high=6.0), beta=2.0, output="y")
    model = b.model("y")
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((3, 16)), "w": rng.standard_normal((16, 5))}
    data = {name: value.astype(np.float32) for name, value in data.items()}
    result = quantize(model, data, weight_bits=7, **QUICK)
    assert near(model, result.model, data, 25)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv_transpose_with_groups(groups):
    b = Builder()
    x = b.input("n", 4, 5, 5)
    weight, bias = b.random(4, 4 // groups, 3, 3), b.random(4)
    b.op("ConvTranspose", x, weight, bias, group=groups, strides=[2, 2], output="y")
    model = b.model("y")
    data = np.random.default_rng(0).standard_normal((4, 4, 5, 5)).astype(np.float32)
    result = quantize(model, {"x": data}, weight_bits=7, **QUICK)
    assert counts(result) == {"ConvTranspose": (1, 1)}
    assert near(model, result.model, {"x": data}, 25)


def test_what_is_kept_stays_as_it_is():
    b = Builder()
    x = b.input(3, 16)
    t = b.op("Gemm", x, b.random(16, 5), b.random(3, 1), beta=2.0, output="kept")
    t = b.op("Tanh", b.op("Gemm", t, b.random(5, 5), b.random(5)))
    b.op("Gemm", t, b.random(5, 5), b.random(5), output="y")
    model = b.model("y")
    data = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    result = quantize(model, {"x": data}, keep=["kept"], weight_bits=7, **QUICK)
    assert counts(result) == {"Gemm": (1, 3)}
    assert result.report.left[0].reason == "it is to stay float"
    assert "Add" not in operators(result.model)


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_an_output_in_front_of_an_activation_keeps_its_range(activation):
    """The library gives it the range of what the activation makes."""
    b = Builder()
    x = b.input("n", 4, 8, 8)
    t = b.op("Conv", x, b.random(4, 4, 3, 3), output="before")
    bounds = [b.constant(np.float32(0))] if activation == "Clip" else []
    b.op("Conv", b.op(activation, t, *bounds), b.random(4, 4, 3, 3), output="y")
    model = b.model("before", "y")
    data = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float32)
    result = quantize(model, {"x": data}, weight_bits=7, **QUICK)
    assert near(model, result.model, {"x": data})  # of the first output


@pytest.mark.parametrize("bounds", [(0.5, 3.0), (-3.0, -0.5), (-1.0, 2.0), (0.0, 6.0)])
def test_clip_keeps_its_bounds(bounds):
    """The library leaves a Clip to the range of the quantized tensor, which has 0 in it."""
    b = Builder()
    x = b.input("n", 4, 8, 8)
    t = b.op("Conv", x, b.random(4, 4, 3, 3))
    b.op("Clip", t, *(b.constant(np.float32(bound)) for bound in bounds), output="y")
    model = b.model("y")
    data = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float32)
    result = quantize(model, {"x": data}, weight_bits=7, **QUICK)
    assert ("Clip" in operators(result.model)) == (min(bounds) > 0 or max(bounds) < 0)
    assert near(model, result.model, {"x": data}, 25)
    assert counts(result) == {"Conv": (1, 1)}


def test_a_weight_without_elements_stays():
    b = Builder()
    x = b.input("n", 16)
    t = b.op("Gemm", x, b.random(16, 4))
    b.op("Concat", t, b.op("MatMul", x, b.random(16, 0)), axis=1, output="y")
    model = b.model("y")
    data = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    result = quantize(model, {"x": data}, weight_bits=7, **QUICK)
    assert [r.reason for r in result.report.left] == ["it reads a constant without elements"]
    assert near(model, result.model, {"x": data}, 25)


def test_what_computes_a_constant_stays():
    """As a filter of sines does, where folding leaves it to be computed in every run."""
    b = Builder()
    x = b.input("n", 1, 64)
    angles = b.op("Unsqueeze", b.random(5, 9, low=1.0, high=300.0), b.constant(np.array([1])))
    weight = b.op("Div", b.op("Sin", angles, output="sines"), angles, output="filter")
    b.op("Add", b.op("Conv", x, weight, output="t"), b.random(1), output="y")
    model = b.model("y")
    named(model)
    found = {refused.operator: refused.reason for refused in left_float(model, ())}
    assert found == dict.fromkeys(("Sin", "Div"), "it computes a constant")


def test_a_weight_that_is_moved_first_is_kept_in_8_bits():
    b = Builder()
    x = b.input("n", 6, elem_type=7)
    table = b.random(20, 16)
    t = b.op("Tanh", b.op("MatMul", b.op("Gather", table, x), b.random(16, 16)))
    b.op("MatMul", t, b.op("Transpose", table, perm=[1, 0]), output="y")
    data = np.random.default_rng(0).integers(0, 20, (4, 6))
    result = quantize(b.model("y"), {"x": data}, weight_bits=7, **QUICK)
    assert counts(result) == {"MatMul": (2, 2)}
    assert all(
        np.prod(t.dims) <= 20 or t.data_type in (2, 3) for t in result.model.graph.initializer
    )


def test_constants_that_nobody_reads(capfd):
    """ONNX Runtime warns of them, also where the library loads the training form."""
    b = Builder()
    b.constant(1.5)
    b.op("Gemm", b.input(3, 16), b.random(16, 5), output="y")
    data = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    quantize(b.model("y"), {"x": data}, weight_bits=7)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("operator", ["Add", "Softmax"])
def test_models_without_weights(operator):
    b = Builder()
    x = b.input("n", 16)
    b.op(operator, *([x, x] if operator == "Add" else [x]), output="y")
    model = b.model("y")
    data = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    made = quantize(model, {"x": data}, weight_bits=7, **QUICK).model
    assert "DequantizeLinear" in operators(made)
    assert near(model, made, {"x": data}, 25)


def test_refuses_quietly_where_there_is_nothing_to_do(capfd):
    """The library calibrates all the same, and ONNX Runtime warns of what it then does not use."""
    b = Builder()
    b.op("Add", b.input("n", elem_type=7), b.constant(3), output="y")
    with pytest.raises(ModelError, match="nothing in it can be quantized"):
        quantize(b.model("y", types={"y": 7}), {"x": np.arange(3)}, **QUICK)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(1, 5), (6, 5)])
def test_products_that_the_librarys_preparation_makes_layers(shape):
    """ONNX Runtime's own optimizer makes a Gemm of a MatMul and an Add, whatever its bias is."""
    b = Builder()
    x = b.input(6, 8)
    b.op("Add", b.op("MatMul", x, b.random(8, 5)), b.random(*shape), output="y")
    data = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)
    forms = {f.name: f for f in quantize(b.model("y"), {"x": data}, threads=1).report.forms}
    assert forms["int8"].failure == ""
    assert forms["int8"].quality.snr > 25
