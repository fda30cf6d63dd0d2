"""Int8 models against int8 models: equal but for rounding, or not."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

import onnxfuse
from tests.parity.breaking import changed
from tests.parity.integers import images, quantized

KINDS = pytest.mark.parametrize(
    "kind", [TensorProto.UINT8, TensorProto.INT8], ids=["uint8", "int8"]
)


@pytest.fixture
def recorded(tmp_path):
    np.savez(tmp_path / "images.npz", x=images())
    return tmp_path / "images.npz"


def check(first, second, **options):
    return onnxfuse.check(first, second, threads=1, **options)


def of(model, name):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    return numpy_helper.to_array(tensor).copy()


@KINDS
@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
def test_what_the_runtime_makes_of_a_model_agrees_with_it(kind, level, recorded, tmp_path):
    model = quantized(kind)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    by_integers = any(node.op_type == "QLinearConv" for node in optimized.graph.node)
    assert by_integers == (level == "ORT_ENABLE_EXTENDED")
    assert check(model, optimized, inputs=recorded).agrees
    assert check(model, optimized).agrees


@KINDS
def test_a_model_agrees_with_itself_and_with_what_optimize_makes_of_it(kind, recorded):
    model = quantized(kind)
    for second in (model, onnxfuse.optimize(model).model):
        assert check(model, second, inputs=recorded).agrees
        assert check(model, second).agrees


def errors(model):
    """Names of constants, and what is wrong with each."""
    channel = (1, *[0] * 3)
    for layer in range(2):
        codes, scales = of(model, f"codes_{layer}"), of(model, f"scales_{layer}")
        codes[channel] += 40
        scales[2] *= np.float32(1.1)
        biases = of(model, f"biases_{layer}")
        biases[3] += 60
        yield f"codes_{layer}", codes
        yield f"scales_{layer}", scales
        yield f"biases_{layer}", biases
    for number in range(3):
        yield f"scale_{number}", of(model, f"scale_{number}") * np.float32(1.1)


@KINDS
def test_constants_that_are_off_are_found(kind, recorded):
    model = quantized(kind)
    for name, value in errors(model):
        found = check(model, changed(model, name, value), inputs=recorded)
        assert not found.agrees, name


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear"])
@pytest.mark.parametrize("number", range(3))
def test_a_zero_point_that_is_off_on_one_side_is_found(operator, number, recorded):
    model, wrong = quantized(), quantized()
    wrong.graph.initializer.append(numpy_helper.from_array(np.array(129, np.uint8), "other"))
    node = next(
        n for n in wrong.graph.node if n.op_type == operator and f"zero_{number}" in n.input
    )
    node.input[2] = "other"
    assert not check(model, wrong, inputs=recorded).agrees


def test_a_zero_point_that_is_off_on_both_sides_moves_the_ends_alone(recorded):
    model = quantized()
    moved = changed(model, "zero_0", np.array(129, np.uint8))
    assert np.abs(images()).max() / 0.05 < 126  # codes that neither model saturates
    assert check(model, moved, inputs=recorded).agrees
