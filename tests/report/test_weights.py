"""Counts of weights, held against numbers that were put there one by one."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper, numpy_helper

import onnxfuse
from onnxfuse.report.html.stored import Stored
from onnxfuse.report.html.weights import distribution
from tests.handmade import build, value
from tests.report.building import two_branches

TINY = np.float32(1.4e-45)


def test_what_is_counted():
    w = np.array([0, -0.0, TINY, 1e-6, -1e-8, 3e-8, 65504, 65505, -1e9, 0.5], np.float32)
    d = distribution(w)
    assert (d.count, d.zeros, d.denormals) == (10, 2, 1)
    assert (d.minimum, d.maximum) == (np.float32(-1e9), 65505)
    assert d.half_overflow == 2
    assert d.half_denormals == 2  # 1e-6 and 3e-8
    assert d.half_vanishing == 2  # the tiny one and -1e-8
    assert d.channels is None


def test_what_is_not_finite_is_set_aside():
    d = distribution(np.array([np.nan, np.inf, -np.inf, 2, -3], np.float32))
    assert (d.not_finite, d.minimum, d.maximum, sum(d.values)) == (3, -3, 2, 2)
    assert d.int8_scale == 3 / 127


def test_nothing_and_zeros():
    assert distribution(np.zeros(0, np.float32)).count == 0
    d = distribution(np.zeros((2, 3), np.float32), (0,))
    assert (d.zeros, d.minimum, d.maximum, d.int8_scale) == (6, 0, 0, 0)
    assert (d.channels.count, d.channels.zero, d.channels.ratio) == (2, 2, 1)


def test_channels():
    w = np.array([[1, -4], [0.5, 0.25], [0, 0]], np.float32)
    c = distribution(w, (0,)).channels
    assert (c.count, c.zero, c.smallest, c.largest, c.ratio) == (3, 1, 0.5, 4, 8)
    c = distribution(w, (1,)).channels
    assert (c.count, c.zero, c.smallest, c.largest) == (2, 0, 1, 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_denormals_are_those_of_the_type(dtype):
    smallest = ml_dtypes.finfo(dtype).smallest_normal
    w = np.array([smallest, float(smallest) / 2, 1], dtype)
    assert distribution(w).denormals == 1
    assert distribution(w).dtype == np.dtype(dtype).name


FLOATS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e5, 1e5, width=32))


@given(FLOATS)
def test_against_the_types_themselves(w):
    d = distribution(w)
    with np.errstate(over="ignore"):
        half = w.astype(np.float16)
    filled = w != 0
    assert d.half_vanishing == np.sum((half == 0) & filled)
    small = (np.abs(half.astype(np.float64)) < np.finfo(np.float16).tiny) & (half != 0)
    rounded_up = np.abs(half) == np.finfo(np.float16).tiny
    assert np.sum(small) <= d.half_denormals <= np.sum(small) + np.sum(rounded_up)
    assert d.half_overflow == np.sum(np.abs(w.astype(np.float64)) > 65504)
    assert sum(d.values) == d.count
    assert sum(d.powers) == d.count - d.zeros
    if d.int8_scale > 1e-30:
        codes = np.rint(w.astype(np.float64) / d.int8_scale)
        assert d.int8_vanishing == np.sum((codes == 0) & filled)


# The weights of a model --------------------------------------------------------------------------


def held(model):
    result = onnxfuse.optimize(model)
    stored = Stored(result)
    return result, [stored.weight(fold) for fold in result.report.folds]


def initializer(result, name):
    (tensor,) = (t for t in result.model.graph.initializer if t.name == name)
    return numpy_helper.to_array(tensor).astype(np.float64)


def test_it_is_the_weight_that_the_model_holds():
    result, (weight,) = held(two_branches())
    w = initializer(result, weight.name)
    assert (weight.operator, weight.shape) == ("Conv", (4, 4, 3, 3))
    assert weight.distribution.minimum == w.min()
    assert weight.distribution.maximum == w.max()
    ranges = np.abs(w).reshape(4, -1).max(1)
    assert weight.distribution.channels.ratio == ranges.max() / ranges.min()


def normed(operator, weight, groups=1, **attributes):
    """A model of a product and a BatchNormalization behind it."""
    channels = 6
    rng = np.random.default_rng(2)
    weights = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    for name in "sbmv":
        numbers = rng.uniform(0.5, 9, channels).astype(np.float32)
        weights.append(numpy_helper.from_array(numbers, name))
    if groups > 1:
        attributes["group"] = groups
    nodes = [
        helper.make_node(operator, ["x", "w"], ["t"], **attributes),
        helper.make_node("BatchNormalization", ["t", *"sbmv"], ["y"]),
    ]
    shape = (1, 4, 8, 8) if weight.ndim > 2 else (3, 4)
    return build(nodes, [value("x", shape)], weights=weights)


def test_channels_of_a_transposed_convolution_in_groups():
    w = np.random.default_rng(4).standard_normal((4, 3, 2, 2))
    result, (weight,) = held(normed("ConvTranspose", w, groups=2))
    stored = np.abs(initializer(result, weight.name))
    ranges = [stored[2 * g : 2 * g + 2, c].max() for g in range(2) for c in range(3)]
    assert weight.operator == "ConvTranspose"
    assert weight.distribution.channels.count == 6
    assert weight.distribution.channels.ratio == max(ranges) / min(ranges)


@pytest.mark.parametrize("turned", [0, 1])
def test_channels_of_a_gemm(turned):
    w = np.random.default_rng(4).standard_normal((6, 4) if turned else (4, 6))
    result, (weight,) = held(normed("Gemm", w, transB=turned))
    stored = np.abs(initializer(result, weight.name))
    node = next(n for n in result.model.graph.node if weight.name in n.input)
    turned_now = any(a.name == "transB" and a.i for a in node.attribute)
    ranges = stored.max(1 if turned_now else 0)
    assert weight.distribution.channels.count == 6
    assert weight.distribution.channels.ratio == ranges.max() / ranges.min()


def test_external_data(tmp_path):
    import onnx

    model = two_branches()
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        size_threshold=0,
        location="m.data",
    )
    _, (weight,) = held(tmp_path / "m.onnx")
    _, (same,) = held(two_branches())
    assert weight.distribution == same.distribution
