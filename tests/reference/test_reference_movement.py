"""Operators that move, reshape and pick elements against ONNX Runtime: always exact."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import (
    NEWEST_OF_ONNXRUNTIME,
    assert_agrees,
    integers,
    run_onnxruntime,
)
from tests.reference.strategies import axes_of, int64, nd_indices, tensors

OPSETS = st.sampled_from([7, 9, 10, 11, 13, 18, 21, NEWEST_OF_ONNXRUNTIME])


@settings(max_examples=25, deadline=None)
@given(st.data(), tensors(), st.sampled_from([7, 11, 13]))
def test_concat(data, x, opset):
    axis = data.draw(axes_of(x))
    count = data.draw(st.integers(1, 3))
    inputs = {f"x{i}": np.repeat(x, i + 1, axis) + 100 * i for i in range(count)}
    if opset >= 11 and data.draw(st.booleans()):
        axis -= x.ndim
    assert_agrees(helper.make_node("Concat", list(inputs), ["y"], axis=axis), inputs, opset)


@settings(max_examples=25, deadline=None)
@given(st.data(), tensors(), OPSETS)
def test_tile(data, x, opset):
    repeats = int64([data.draw(st.integers(0, 3)) for _ in x.shape])
    node = helper.make_node("Tile", ["x", "repeats"], ["y"])
    assert_agrees(node, {"x": x, "repeats": repeats}, opset)


def test_tile_rejects_repeats_of_another_length():
    node = helper.make_node("Tile", ["x", "repeats"], ["y"])
    with pytest.raises(ValueError, match=r"x has 2 axes, but repeats has the shape \(1,\)"):
        evaluate([node], {"x": np.ones((2, 3)), "repeats": int64([2])}, 13)


@settings(max_examples=50, deadline=None)
@given(st.data(), tensors(max_side=7), OPSETS)
def test_split(data, x, opset):
    axis = data.draw(axes_of(x))
    attributes, inputs = {"axis": axis}, {"x": x}
    if axis == 0 and data.draw(st.booleans()):
        del attributes["axis"]
    size = x.shape[axis]
    if data.draw(st.booleans()):
        cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
        sizes = np.diff([0, *cuts, size]).tolist()
        count = len(sizes)
        if opset < 13:
            attributes["split"] = sizes
        else:
            inputs["split"] = int64(sizes)
    elif opset >= 18:
        # ONNX Runtime wants no part to be empty
        count = data.draw(st.integers(1, size).filter(lambda n: (n - 1) * -(-size // n) < size))
        attributes["num_outputs"] = count
    else:
        count = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    outputs = [f"y{i}" for i in range(count)]
    assert_agrees(helper.make_node("Split", list(inputs), outputs, **attributes), inputs, opset)


def test_split_rejects_sizes_that_do_not_fit():
    node = helper.make_node("Split", ["x"], ["a", "b"], split=[1, 1])
    with pytest.raises(ValueError, match=r"cannot split 3 into 2 parts of sizes \[1, 1\]"):
        evaluate([node], {"x": np.ones(3)}, 11)
    node = helper.make_node("Split", ["x"], ["a", "b"])
    with pytest.raises(ValueError, match="cannot split 3 into 2 equal parts"):
        evaluate([node], {"x": np.ones(3)}, 13)


@settings(max_examples=80, deadline=None)
@given(st.data(), tensors(), OPSETS)
def test_slice(data, x, opset):
    axes = data.draw(st.lists(axes_of(x), min_size=1, unique=True))
    steps = [1] * len(axes)
    if opset >= 10 and data.draw(st.booleans()):
        steps = [data.draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in axes]
    far = {1: [2**31 - 1, 2**63 - 1], -1: [-(2**31), -(2**63)]}
    bounds = {
        "starts": [data.draw(st.integers(-6, 6)) for _ in axes],
        "ends": [
            data.draw(st.integers(-6, 6) | st.sampled_from(far[1 if step > 0 else -1]))
            for step in steps
        ],
    }
    if axes == list(range(len(axes))) and data.draw(st.booleans()):
        axes = None
    if opset < 10:
        attributes = bounds if axes is None else {**bounds, "axes": axes}
        assert_agrees(helper.make_node("Slice", ["x"], ["y"], **attributes), {"x": x}, opset)
        return
    inputs = {"x": x} | {name: int64(value) for name, value in bounds.items()}
    if axes is not None:
        inputs["axes"] = int64([a - x.ndim * data.draw(st.integers(0, 1)) for a in axes])
    names = list(inputs)
    if set(steps) != {1}:
        inputs["steps"] = int64(steps)
        names = ["x", "starts", "ends", "axes" if axes is not None else "", "steps"]
    assert_agrees(helper.make_node("Slice", names, ["y"]), inputs, opset)


@pytest.mark.parametrize("end", [2**31 - 1, 2**63 - 1])
def test_refuses_a_backward_slice_to_the_largest_integer(end):
    # ONNX Runtime takes this for the whole axis; clamped as specified it is empty
    node = helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"])
    values = {"x": np.ones(3), "s": int64([2]), "e": int64([end]), "a": int64([0])}
    with pytest.raises(UnsupportedOperator, match=f"step -1 to {end}"):
        evaluate([node], values | {"t": int64([-1])}, 13)


@settings(max_examples=30, deadline=None)
@given(st.data(), tensors(), OPSETS)
def test_gather(data, x, opset):
    axis = data.draw(axes_of(x))
    shape = data.draw(st.lists(st.integers(1, 3), max_size=2))
    low = -x.shape[axis] if opset >= 11 else 0
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    indices = rng.integers(
        low, x.shape[axis], shape, data.draw(st.sampled_from([np.int64, np.int32]))
    )
    node = helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)
    assert_agrees(node, {"x": x, "i": np.asarray(indices)}, opset)


@settings(max_examples=40, deadline=None)
@given(st.data(), tensors(), st.sampled_from([11, 12, 13, NEWEST_OF_ONNXRUNTIME]))
def test_gather_nd(data, x, opset):
    batch_dims = data.draw(st.integers(0, x.ndim - 1)) if opset >= 12 else 0
    depth = data.draw(st.integers(1, x.ndim - batch_dims))
    leading = (*x.shape[:batch_dims], *data.draw(st.lists(st.integers(1, 3), max_size=2)))
    indices = nd_indices(data, x.shape[batch_dims:], leading, depth)
    attributes = {"batch_dims": batch_dims} if batch_dims else {}
    node = helper.make_node("GatherND", ["x", "i"], ["y"], **attributes)
    assert_agrees(node, {"x": x, "i": indices}, opset)


@pytest.mark.parametrize(
    ("shape", "target", "allowzero"),
    [
        ((2, 3, 4), [4, 6], 0),
        ((2, 3, 4), [0, -1], 0),
        ((2, 3, 4), [0, 0, 2, 2], 0),
        ((2, 3, 4), [-1], 0),
        ((2, 3, 4), [1, 3, -1, 1], 0),
        ((1,), [], 0),
        ((0, 3), [3, 0], 1),
        ((0, 3), [0, 5], 1),
        ((0, 3), [0, 3, 1], 0),
    ],
)
def test_reshape(shape, target, allowzero):
    x = integers(np.random.default_rng(0), *shape)
    attributes = {"allowzero": 1} if allowzero else {}
    node = helper.make_node("Reshape", ["x", "target"], ["y"], **attributes)
    for opset in (14, 21) if allowzero else (7, 13, 14, NEWEST_OF_ONNXRUNTIME):
        assert_agrees(node, {"x": x, "target": int64(target)}, opset)


@settings(max_examples=25, deadline=None)
@given(st.data(), tensors(), OPSETS)
def test_flatten(data, x, opset):
    assume(opset >= 9 or x.dtype == np.float32)
    low = -x.ndim if opset >= 11 else 0
    axis = data.draw(st.integers(low, x.ndim))
    attributes = {} if axis == 1 else {"axis": axis}
    assert_agrees(helper.make_node("Flatten", ["x"], ["y"], **attributes), {"x": x}, opset)


@settings(max_examples=25, deadline=None)
@given(st.data(), tensors(min_rank=0), OPSETS)
def test_transpose(data, x, opset):
    perm = data.draw(st.none() | st.permutations(range(x.ndim)))
    attributes = {} if perm is None or not perm else {"perm": perm}
    assert_agrees(helper.make_node("Transpose", ["x"], ["y"], **attributes), {"x": x}, opset)


@settings(max_examples=40, deadline=None)
@given(st.data(), tensors(max_side=2), OPSETS)
def test_squeeze(data, x, opset):
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    axes = (
        data.draw(st.none() | st.lists(st.sampled_from(ones), unique=True, min_size=1))
        if ones
        else None
    )
    if axes and opset >= 11 and data.draw(st.booleans()):
        axes = [axis - x.ndim for axis in axes]
    inputs, attributes = {"x": x}, {}
    if axes is not None and opset < 13:
        attributes["axes"] = axes
    elif axes is not None:
        inputs["axes"] = int64(axes)
    assert_agrees(helper.make_node("Squeeze", list(inputs), ["y"], **attributes), inputs, opset)


@settings(max_examples=40, deadline=None)
@given(st.data(), tensors(min_rank=0, max_rank=3), OPSETS)
def test_unsqueeze(data, x, opset):
    count = data.draw(st.integers(1, 3))
    rank = x.ndim + count
    axes = data.draw(st.permutations(range(rank)))[:count]
    if opset >= 11 and data.draw(st.booleans()):
        axes = [axis - rank for axis in axes]
    inputs, attributes = {"x": x}, {}
    if opset < 13:
        attributes["axes"] = axes
    else:
        inputs["axes"] = int64(axes)
    assert_agrees(helper.make_node("Unsqueeze", list(inputs), ["y"], **attributes), inputs, opset)


@pytest.mark.parametrize(
    ("shape", "target"),
    [((3, 1), [2, 3, 4]), ((3, 1), [3, 1]), ((2, 3), [1, 1]), ((1,), [4]), ((), [2, 2])],
)
@pytest.mark.parametrize("opset", [8, 13])
def test_expand(shape, target, opset):
    x = integers(np.random.default_rng(0), *shape)
    node = helper.make_node("Expand", ["x", "target"], ["y"])
    assert_agrees(node, {"x": x, "target": int64(target)}, opset)


@pytest.mark.parametrize("operator", ["Reshape", "Expand"])
@pytest.mark.parametrize("target", [[[2, 2]], 4])
def test_a_shape_is_a_vector(operator, target):
    node = helper.make_node(operator, ["x", "target"], ["y"])
    with pytest.raises(ValueError, match="a shape of shape"):
        evaluate([node], {"x": np.ones(4), "target": int64(target)}, 18)


@pytest.mark.parametrize(
    ("attributes", "opset"),
    [({}, 7), ({}, 13), ({"start": 1}, 15), ({"end": -1}, 15), ({"start": -3, "end": 9}, 21)],
)
def test_shape(attributes, opset):
    x = np.zeros((2, 3, 4, 5), np.float32)
    assert_agrees(helper.make_node("Shape", ["x"], ["y"], **attributes), {"x": x}, opset)


def image(channels, height, width):
    return np.arange(2.0 * channels * height * width, dtype=np.float32).reshape(
        2, channels, height, width
    )


@pytest.mark.parametrize("mode", [None, "DCR", "CRD"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_depth_to_space(mode, block):
    x = image(2 * block**2, 3, 2)
    attributes = {} if mode is None else {"mode": mode}
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=block, **attributes)
    for opset in (11, 13) if mode else (7, 11, 13):
        assert_agrees(node, {"x": x}, opset)


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("opset", [7, 13])
def test_space_to_depth(block, opset):
    node = helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=block)
    assert_agrees(node, {"x": image(3, 2 * block, 3 * block)}, opset)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_inverts_depth_to_space(mode):
    # opset 28: SpaceToDepth has a mode
    x = image(12, 3, 2)
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode),
        helper.make_node("SpaceToDepth", ["y"], ["z"], blocksize=2, mode=mode),
    ]
    np.testing.assert_array_equal(evaluate(nodes, {"x": x}, 28)["z"], x)


def test_shape_arithmetic_keeps_integers():
    # flatten by hand: Shape -> Gather -> Mul, Div -> Unsqueeze -> Concat -> Reshape
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Gather", ["shape", "one"], ["c"]),
        helper.make_node("Mul", ["n", "c"], ["nc"]),
        helper.make_node("Div", ["nc", "two"], ["half"]),
        helper.make_node("Unsqueeze", ["half"], ["row"], axes=[0]),
        helper.make_node("Concat", ["row", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    inputs = {"x": image(3, 2, 2), "zero": int64(0), "one": int64(1), "two": int64(2)}
    inputs["rest"] = int64([-1])
    expected = run_onnxruntime(nodes, inputs, 11)
    actual = evaluate(nodes, inputs, 11)
    assert actual["y"].shape == expected["y"].shape == (3, 8)
    assert all(actual[name].dtype == np.int64 for name in ("shape", "nc", "half", "target"))
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
