"""Sizes carried on by name where ONNX's shape inference loses them."""

import pytest
from onnx import TensorProto

from onnxfuse.graph import Graph
from onnxfuse.shapes import infer_types
from onnxfuse.symbols import completed_types
from tests.lift.building import Builder
from tests.lift.comparing import optimized


def shapes(b, *names):
    model = b.model(names[-1])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    types = infer_types(model)
    graph = Graph(model.graph, b.opset, 9, types=types)
    types |= completed_types(graph)
    return [types[name].shape for name in names]


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 1), {}),
        ((2, 3), {"pads": [0, 1, 1, 1]}),
        ((3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((4, 4), {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_a_conv_that_keeps_the_size_keeps_its_name(kernel, attributes):
    b = Builder()
    x = b.input("n", 4, "h", "w")
    (shape,) = shapes(b, b.conv(x, 4, 6, kernel, **attributes))
    assert shape == ("n", 6, "h", "w")


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((3, 3), {}),
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((1, 1), {"strides": [2, 2]}),
        ((2, 2), {"pads": [1, 1, 1, 1]}),
    ],
)
def test_a_conv_that_changes_the_size_does_not(kernel, attributes):
    b = Builder()
    x = b.input("n", 4, "h", "w")
    (shape,) = shapes(b, b.conv(x, 4, 6, kernel, **attributes))
    assert shape[:2] == ("n", 6)
    assert not {"h", "w"} & set(shape)


def test_a_conv_tells_rank_and_channels_behind_a_reshape_to_an_unknown_shape():
    b = Builder()
    x = b.input(None, None)
    target = b.input(4, name="target", elem_type=TensorProto.INT64)
    free = b.op("Reshape", x, target)
    y = b.op("Relu", b.conv(free, 4, 6, (3, 3)))
    before, after = shapes(b, free, y)
    assert (len(before), before[1]) == (4, 4)
    assert (len(after), after[1]) == (4, 6)


def test_sizes_are_followed_through_integer_arithmetic():
    b = Builder()
    x = b.input("n", 6, "h", "w")
    y = b.conv(x, 6, 6, (3, 3), pads=[1] * 4)
    shape = b.op("Shape", y)
    lead = b.op("Gather", shape, b.constant(0))
    lead = b.op("Unsqueeze", lead, b.constant([0]))
    space = b.op("Slice", shape, b.constant([2]), b.constant([4]))
    target = b.op("Concat", lead, b.constant([2, 3]), space, axis=0)
    back = b.op("Concat", lead, b.constant([-1]), space, axis=0)
    wide = b.op("Reshape", y, target)
    turned = b.op("Transpose", wide, perm=[0, 2, 1, 3, 4])
    found = shapes(b, wide, turned, b.op("Reshape", turned, back))
    assert found == [("n", 2, 3, "h", "w"), ("n", 3, 2, "h", "w"), ("n", 6, "h", "w")]


def test_what_is_left_over_is_not_guessed():
    b = Builder()
    x = b.input("n", 6, "h", "w")
    merged = b.op("Reshape", x, b.constant([-1, 3, 4]))
    (shape,) = shapes(b, merged)
    assert not isinstance(shape[0], int)
    assert shape[0] not in ("n", "h", "w")
    assert shape[1:] == (3, 4)


@pytest.mark.parametrize(
    ("to", "size"),
    [
        (TensorProto.INT32, "n"),
        (TensorProto.INT64, "n"),
        (TensorProto.BOOL, None),
        (TensorProto.UINT8, None),
        (TensorProto.FLOAT16, None),
    ],
)
def test_a_size_is_the_same_in_a_type_that_holds_it(to, size):
    b = Builder()
    x = b.input("n", 4, 6, 8)
    n = b.op("Gather", b.op("Shape", x), b.constant([0]))
    n = b.op("Cast", b.op("Cast", n, to=to), to=TensorProto.INT64)
    (shape,) = shapes(b, b.op("Reshape", x, b.op("Concat", n, b.constant([4, 48]), axis=0)))
    assert (shape[0] if shape and shape[0] == "n" else None) == size


@pytest.mark.parametrize("cut", ["Slice", "Gather", "Split"])
def test_sizes_in_rows_and_columns_are_not_followed(cut):
    """[[n, 4], [5, 6]], of which the second column is (4, 6)."""
    b = Builder()
    x, other = b.input("n", 4, 5, 6), b.input("n", 24, name="z")
    shape = b.op("Shape", x)
    table = b.op("Reshape", shape, b.constant([2, 2]))
    if cut == "Slice":
        column = b.op("Slice", table, b.constant([1]), b.constant([3]), b.constant([1]))
    elif cut == "Gather":
        column = b.op("Gather", table, b.constant([1]), axis=1)
    else:
        column = b.ops("Split", table, b.constant([1, 1]), outputs=2, axis=1)[1]
    column = b.op("Squeeze", column, b.constant([1]))
    target = b.op("Concat", b.op("Gather", shape, b.constant([0])), column, axis=0)
    (found,) = shapes(b, b.op("Reshape", other, target))
    real = (None, 4, 6)
    assert found is None or all(
        not isinstance(d, int) or d == r for d, r in zip(found, real, strict=True)
    )


def test_rows_and_columns_do_not_decide_about_padding():
    """SAME padding by a width that was read off the wrong way once moved the kernel."""
    b = Builder()
    x, other = b.input("n", 4, 5, 6), b.input("n", 24, name="z")
    shape = b.op("Shape", x)
    table = b.op("Reshape", shape, b.constant([2, 2]))
    column = b.op("Slice", table, b.constant([1]), b.constant([3]), b.constant([1]))
    column = b.op("Squeeze", column, b.constant([1]))
    target = b.op("Concat", b.op("Gather", shape, b.constant([0])), column, axis=0)
    y = b.conv(b.op("Reshape", other, target), 4, 4, (3,), auto_pad="SAME_UPPER", strides=[2])
    optimized(b.model(b.batch_norm(y, 4)), {"n": 1}, {"n": 2})
