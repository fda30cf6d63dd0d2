"""GatherElements, ScatterElements, ScatterND and Where: ONNX Runtime, and loops as specified."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import NEWEST_OF_ONNXRUNTIME, assert_agrees, integers
from tests.reference.strategies import axes_of, int64, nd_indices, tensors

REDUCTIONS = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": max,
    "min": min,
}


def element_indices(data, x, axis):
    """Distinct positions along axis, some of them negative, for a part of the other axes."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    part = tuple(slice(data.draw(st.integers(1, size))) for size in x.shape)
    positions = rng.permuted(np.indices(x.shape)[axis], axis=axis)[part]
    return positions - x.shape[axis] * rng.integers(0, 2, positions.shape)


@settings(max_examples=50, deadline=None)
@given(st.data(), tensors(), st.sampled_from([11, 13, NEWEST_OF_ONNXRUNTIME]))
def test_gather_elements(data, x, opset):
    axis = data.draw(axes_of(x))
    indices = np.repeat(element_indices(data, x, axis), data.draw(st.integers(1, 2)), axis)
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis - x.ndim)
    assert_agrees(node, {"x": x, "i": indices}, opset)
    y = evaluate([node], {"x": x, "i": indices}, opset)["y"]
    for place, position in np.ndenumerate(indices):
        assert y[place] == x[(*place[:axis], position, *place[axis + 1 :])]


@settings(max_examples=50, deadline=None)
@given(st.data(), tensors(), st.sampled_from([9, 10, 11, 13, 16, 18, NEWEST_OF_ONNXRUNTIME]))
def test_scatter_elements(data, x, opset):
    axis = data.draw(axes_of(x))
    indices = element_indices(data, x, axis)
    if opset < 11:
        indices %= x.shape[axis]
    updates = -1 - np.arange(indices.size).reshape(indices.shape).astype(x.dtype)
    before = x.copy()
    op_type = "Scatter" if opset < 11 else "ScatterElements"
    attributes = {} if axis == 0 else {"axis": axis - (x.ndim if opset >= 11 else 0)}
    node = helper.make_node(op_type, ["x", "i", "u"], ["y"], **attributes)
    assert_agrees(node, {"x": x, "i": indices, "u": updates}, opset)
    np.testing.assert_array_equal(x, before)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from(sorted(REDUCTIONS)), tensors(), st.sampled_from([16, 18]))
def test_scatter_elements_with_reduction(data, reduction, x, opset):
    opset = 18 if reduction in ("max", "min") else opset
    axis = data.draw(axes_of(x))
    indices = element_indices(data, x, axis)
    if reduction != "none":  # several updates of one element
        indices = np.repeat(indices, data.draw(st.integers(1, 3)), axis)
    updates = integers(np.random.default_rng(0), *indices.shape, dtype=x.dtype)
    node = helper.make_node(
        "ScatterElements", ["x", "i", "u"], ["y"], axis=axis, reduction=reduction
    )
    y = evaluate([node], {"x": x, "i": indices, "u": updates}, opset)["y"]
    expected = x.copy()
    for place, position in np.ndenumerate(indices):
        target = (*place[:axis], position, *place[axis + 1 :])
        expected[target] = REDUCTIONS[reduction](expected[target], updates[place])
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == (np.float64 if x.dtype == np.float32 else x.dtype)


@settings(max_examples=40, deadline=None)
@given(st.data(), tensors(), st.sampled_from([11, 13, 16, 18, NEWEST_OF_ONNXRUNTIME]))
def test_scatter_nd(data, x, opset):
    depth = data.draw(st.integers(1, x.ndim))
    leading = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    indices = nd_indices(data, x.shape, leading, depth)
    flat = [tuple(np.mod(row, x.shape[:depth])) for row in indices.reshape(-1, depth)]
    assume(len(set(flat)) == len(flat))  # which of two writers wins is not specified
    updates = -1 - np.arange(np.prod([*leading, *x.shape[depth:]], dtype=int))
    updates = updates.reshape(*leading, *x.shape[depth:]).astype(x.dtype)
    before = x.copy()
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"])
    assert_agrees(node, {"x": x, "i": indices, "u": updates}, opset)
    np.testing.assert_array_equal(x, before)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from(sorted(REDUCTIONS)), tensors(), st.sampled_from([16, 18]))
def test_scatter_nd_with_reduction(data, reduction, x, opset):
    opset = 18 if reduction in ("max", "min") else opset
    depth = data.draw(st.integers(1, x.ndim))
    indices = nd_indices(data, x.shape, (data.draw(st.integers(1, 6)),), depth)
    if reduction == "none":
        indices = indices[:1]
    updates = integers(np.random.default_rng(0), len(indices), *x.shape[depth:], dtype=x.dtype)
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)
    y = evaluate([node], {"x": x, "i": indices, "u": updates}, opset)["y"]
    expected = x.copy()
    combine = np.vectorize(REDUCTIONS[reduction], otypes=[x.dtype])
    for index, update in zip(indices, updates, strict=True):
        expected[tuple(index)] = combine(expected[tuple(index)], update)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == (np.float64 if x.dtype == np.float32 else x.dtype)


@pytest.mark.parametrize("op_type", ["ScatterND", "ScatterElements"])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32])
def test_scatter_keeps_the_type(op_type, dtype):
    indices = int64([1]) if op_type == "ScatterElements" else int64([[1]])
    values = {"x": np.zeros(3, dtype), "i": indices, "u": np.ones(1, dtype)}
    y = evaluate([helper.make_node(op_type, ["x", "i", "u"], ["y"])], values, 18)["y"]
    np.testing.assert_array_equal(y, np.array([0, 1, 0], dtype), strict=True)


@pytest.mark.parametrize("op_type", ["ScatterND", "ScatterElements"])
def test_refuses_an_unknown_reduction(op_type):
    indices = int64([0]) if op_type == "ScatterElements" else int64([[0]])
    node = helper.make_node(op_type, ["x", "i", "u"], ["y"], reduction="mean")
    with pytest.raises(UnsupportedOperator, match="reduction 'mean'"):
        evaluate([node], {"x": np.ones(3), "i": indices, "u": np.ones(1)}, 18)


@pytest.mark.parametrize("op_type", ["GatherElements", "ScatterElements"])
@pytest.mark.parametrize("shape", [(2,), (3, 3), (2, 2, 1)])
def test_indices_that_do_not_fit(op_type, shape):
    names = ["x", "i", "u"] if op_type == "ScatterElements" else ["x", "i"]
    node = helper.make_node(op_type, names, ["y"], axis=1)
    values = {"x": np.ones((2, 3)), "i": np.zeros(shape, np.int64), "u": np.ones(shape)}
    with pytest.raises(ValueError, match="do not fit x of shape"):
        evaluate([node], values, 13)


@pytest.mark.parametrize(
    ("op_type", "indices", "addressed"),
    [("ScatterElements", [[0]], r"\(1, 1\)"), ("ScatterND", [[0]], r"\(1, 3\)")],
)
def test_updates_that_do_not_fit(op_type, indices, addressed):
    node = helper.make_node(op_type, ["x", "i", "u"], ["y"])
    values = {"x": np.ones((2, 3)), "i": int64(indices), "u": np.ones((2, 3))}
    with pytest.raises(ValueError, match=rf"shape \(2, 3\), but indices address {addressed}"):
        evaluate([node], values, 13)


@settings(max_examples=40, deadline=None)
@given(
    mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3),
    st.sampled_from([np.float32, np.int64, np.uint8]),
    st.sampled_from([9, 16, NEWEST_OF_ONNXRUNTIME]),
    st.integers(0, 99),
)
def test_where(shapes, dtype, opset, seed):
    rng = np.random.default_rng(seed)
    condition, x, y = (integers(rng, *shape, dtype=dtype) for shape in shapes.input_shapes)
    inputs = {"c": np.asarray(condition > 0), "x": x, "y": y}
    assert_agrees(helper.make_node("Where", ["c", "x", "y"], ["z"]), inputs, opset)
