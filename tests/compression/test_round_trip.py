"""The weights that ONNX Runtime computes are those of the stated formula, bit for bit."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from onnxfuse.compression import compress
from onnxfuse.compression.lower import packed
from tests.compression.building import DTYPES, chain, picture
from tests.compression.definition import run_for, unpacked, weight_by_definition
from tests.lift.building import Builder


@st.composite
def layers(draw):
    """A model of one layer, or of several with one weight, and inputs for it."""
    kind = draw(st.sampled_from(["Conv", "Conv", "ConvTranspose", "Gemm", "MatMul", "batched"]))
    elem_type = draw(st.sampled_from([TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT16]))
    b = Builder(draw(st.sampled_from([13, 18, 21])), elem_type, draw(st.integers(0, 999)))
    inputs = draw(st.integers(2, 70))
    outputs = draw(st.integers(20, 40))
    if kind in ("Conv", "ConvTranspose"):
        groups = draw(st.sampled_from([1, 1, 2, 3, inputs]))
        inputs = -(-inputs // groups) * groups
        outputs = -(-outputs // groups) * groups
        kernel = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
        dilations = [draw(st.integers(1, 2)) for _ in kernel]
        shape = (outputs, inputs // groups) if kind == "Conv" else (inputs, outputs // groups)
        weight = b.random(*shape, *kernel, name="w")
        x = b.input(1, inputs, *(6,) * len(kernel))
        made = [b.op(kind, x, weight, group=groups, dilations=dilations)]
        if draw(st.booleans()):
            made.append(b.op(kind, x, weight, group=groups, pads=[1, 1] * len(kernel)))
    elif kind == "Gemm":
        turned = draw(st.booleans())
        shape = (outputs, inputs) if turned else (inputs, outputs)
        made = [b.op("Gemm", b.input(2, inputs), b.random(*shape, name="w"), transB=int(turned))]
    else:
        lead = (3,) if kind == "batched" else ()
        if draw(st.booleans()):
            x, weight = b.input(*lead, 2, inputs), b.random(*lead, inputs, outputs, name="w")
            made = [b.op("MatMul", x, weight)]
        else:
            x, weight = b.input(*lead, inputs, 2), b.random(*lead, outputs, inputs, name="w")
            made = [b.op("MatMul", weight, x)]
    model = b.model(*made)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    values = np.random.default_rng(0).standard_normal(shape).astype(DTYPES[elem_type])
    return model, {"x": values}


@given(
    layer=layers(),
    bits=st.sampled_from([2, 3, 4, 8]),
    block=st.sampled_from([16, 32, 64]),
    zero_point=st.booleans(),
    channel_shift=st.booleans(),
    scales=st.sampled_from(["float16", "float32"]),
)
@settings(max_examples=60, deadline=None)
def test_the_runtime_computes_the_formula(layer, bits, block, zero_point, channel_shift, scales):
    model, feeds = layer
    result = compress(
        model,
        bits=bits,
        block=block,
        zero_point=zero_point,
        channel_shift=channel_shift,
        scales=scales,
        fold=False,
    )
    onnx.checker.check_model(result.model, full_check=True)
    if not result.report.compressed:
        (left,) = result.report.left
        assert left.reason.startswith("it would take")
        return
    expected = weight_by_definition(result.model, "w")
    original = next(t for t in model.graph.initializer if t.name == "w")
    assert expected.dtype == DTYPES[original.data_type]
    for optimized in (False, True):
        (found,) = run_for(result.model, ["w"], feeds, optimized)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    (compressed,) = result.report.compressed
    before = numpy_helper.to_array(original).astype(np.float64)
    rest = np.sum((before - expected.astype(np.float64)) ** 2)
    assert compressed.snr == pytest.approx(10 * np.log10(np.sum(before**2) / rest), rel=1e-6)


@given(
    bits=st.sampled_from([2, 4, 8]),
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_integers_are_packed_as_onnx_does(bits, shape, seed):
    low = -(2 ** (bits - 1))
    values = np.random.default_rng(seed).integers(low, -low, shape).astype(np.int8)
    kind = getattr(TensorProto, f"INT{bits}")
    tensor = TensorProto(data_type=kind, dims=shape, raw_data=packed(values, bits))
    assert np.array_equal(unpacked(tensor), values)
    assert np.array_equal(numpy_helper.to_array(tensor).astype(np.int8), values)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_outputs_are_those_of_a_float_model_with_these_weights(bits):
    result = compress(chain(), bits=bits, fold=False)
    float_model = chain()
    for tensor in float_model.graph.initializer:
        if tensor.name in ("first", "second"):
            value = weight_by_definition(result.model, tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    (expected,) = run_for(float_model, ["y"], picture(), False)
    (found,) = run_for(result.model, ["y"], picture(), False)
    assert np.array_equal(found, expected)


def test_scales_are_in_half_precision_and_cast_in_the_file():
    result = compress(chain(), fold=False)
    kinds = {t.name: t.data_type for t in result.model.graph.initializer}
    assert kinds["first/scale"] == TensorProto.FLOAT16
    assert kinds["first/quantized"] == TensorProto.INT4
    operators = [node.op_type for node in result.model.graph.node]
    assert operators == ["Cast", "DequantizeLinear"] * 2 + ["Conv", "Relu", "Conv"]


def test_scales_go_to_single_precision_where_half_would_lose_them():
    model = chain()
    tensor = next(t for t in model.graph.initializer if t.name == "first")
    small = numpy_helper.to_array(tensor) * np.float32(1e-7)
    tensor.CopyFrom(numpy_helper.from_array(small, "first"))
    first, second = compress(model, fold=False).report.compressed
    assert (first.scales, second.scales) == ("float32", "float16")
    assert abs(first.snr - second.snr) < 3


def test_small_numbers_in_half_precision_keep_their_accuracy():
    model = chain(elem_type=TensorProto.FLOAT16)
    tensor = next(t for t in model.graph.initializer if t.name == "first")
    small = (numpy_helper.to_array(tensor).astype(np.float32) * 1e-3).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(small, "first"))
    for bits in (4, 8):
        result = compress(model, bits=bits, fold=False)
        first, second = result.report.compressed
        assert abs(first.snr - second.snr) < 3
        (found,) = run_for(result.model, ["first"], picture(dtype=np.float16), True)
        assert np.array_equal(found, weight_by_definition(result.model, "first"))
