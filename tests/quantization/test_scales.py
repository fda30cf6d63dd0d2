"""Scales at which int8 products cannot saturate."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxfuse.quantization.scales import plain_scales, scale_overrides, unsaturated_scales
from tests.lift.building import Builder

NUMBERS = st.floats(-100, 100, width=32)
WEIGHTS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=NUMBERS
)


def rounded(weight, scales):
    """int8 as QuantizeLinear makes it: half to even, saturated."""
    return np.clip(np.rint(weight / scales[:, None]), -128, 127).astype(int)


def worst_pair(values):
    """The largest sum of two products with 0 to 255, over all pairs, by trying them."""
    pairs = [(a, b) for i, a in enumerate(values) for b in [*values[:i], *values[i + 1 :], 0]]
    return max(max(255 * max(a, 0) + 255 * max(b, 0), 255 * -min(a + b, a, b, 0)) for a, b in pairs)


@settings(max_examples=300, deadline=None)
@given(WEIGHTS, st.sampled_from([np.float32, np.float16]))
def test_no_pair_of_products_leaves_int16(weight, dtype):
    weight = weight.astype(dtype)
    scales = unsaturated_scales(weight)
    assert scales.dtype == dtype
    assert (scales > 0).all()
    for values in rounded(weight.astype(np.float64), scales.astype(np.float64)).tolist():
        assert worst_pair(values) <= 32767


@settings(max_examples=100, deadline=None)
@given(WEIGHTS)
def test_never_coarser_than_seven_bits(weight):
    largest = np.abs(weight.astype(np.float64)).max(1)
    scales = unsaturated_scales(weight)
    normal = largest > 1e-30
    assert (scales[normal] <= 1.001 * largest[normal] / 64).all()


def test_by_hand():
    weight = np.array([[127, 1, -90], [100, 100, 0], [-64, 3, -64], [0, 0, 0]], np.float32)
    largest = 200 / 128
    expected = [1, largest, 1, largest]  # 127 / 127; (100 + 100) / 128; (64 + 64) / 128; nothing
    np.testing.assert_allclose(unsaturated_scales(weight), expected, rtol=1e-3)
    np.testing.assert_allclose(plain_scales(weight), [1, 100 / 127, 64 / 127, 1], rtol=1e-6)


def test_axes_are_those_of_the_operators():
    b = Builder()
    x = b.input(1, 3, 4, 4)
    t = b.op("Flatten", b.op("Conv", x, b.random(5, 3, 1, 1, name="conv")))
    t = b.op("Gemm", t, b.random(80, 6, name="gemm"))
    t = b.op("Gemm", t, b.random(7, 6, name="transposed"), transB=1)
    t = b.op("MatMul", t, b.random(7, 2, name="matrix"))
    t = b.op("Reshape", t, b.constant(np.array([1, 2, 1, 1])))
    b.op("ConvTranspose", t, b.random(2, 3, 2, 2, name="wide"), output="y")
    found = scale_overrides(b.model("y"), 7)
    assert {name: (entries[0]["axis"], len(entries)) for name, entries in found.items()} == {
        "conv": (0, 5),
        "gemm": (1, 6),
        "transposed": (0, 7),
        "matrix": (1, 2),
        "wide": (1, 3),
    }


def test_leaves_weights_that_are_read_in_several_ways():
    b = Builder()
    x = b.input(3, 3)
    weight = b.random(3, 3)
    t = b.op("Gemm", x, weight)
    t = b.op("Gemm", t, weight, transB=1)
    b.op("Add", t, b.op("MatMul", b.op("MatMul", x, x), b.random(2, 3, 3)), output="y")
    assert scale_overrides(b.model("y"), 7) == {}


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_int8_kernels_compute_what_their_definition_says(groups):
    """QLinearConv of weights at the bound and activations of 255, in int64 and on the processor."""
    rng = np.random.default_rng(groups)
    weight = rng.standard_normal((6, 6 // groups, 3, 3)).astype(np.float32) ** 3
    scales = unsaturated_scales(weight.reshape(6, -1))
    values = rounded(weight.reshape(6, -1), scales).reshape(weight.shape)
    b = Builder(opset=13)
    x = b.input(1, 6, 5, 5, elem_type=2)
    one, zero = b.constant(np.float32(1)), b.constant(0, elem_type=2)
    held = b.constant(values, elem_type=3), b.constant(np.float32(1)), b.constant(0, elem_type=3)
    step = 2.0**-3 * np.abs(values).sum()
    result = b.constant(np.float32(step)), b.constant(128, elem_type=2)
    b.op("QLinearConv", x, one, zero, *held, *result, output="y", group=groups)
    model = b.model("y", types={"y": 2})
    data = np.full((1, 6, 5, 5), 255, np.uint8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": data})
    total = 255 * values.reshape(6, -1).sum(1)
    expected = np.clip(np.rint(total / np.float32(step)) + 128, 0, 255)
    np.testing.assert_array_equal(found[0], expected[:, None, None].repeat(3, 1).repeat(3, 2))
