"""Nodes that no runtime takes stay as they are: nothing is folded, and nothing fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from tests.handmade import build
from tests.lift.building import Builder
from tests.lift.comparing import refusal, run

C = 4
MANY = 1 << 40
Layer = Callable[[Builder, str], str]


def spoilt(layer: Layer, opset: int = 18) -> onnx.ModelProto:
    """Conv, the layer, and a scale behind it; of what comes out no shape is declared."""
    b = Builder(opset)
    x = b.conv(b.input("n", C, 6, 6), C, C, (1, 1))
    y = b.op("Mul", layer(b, x), b.constant(0.7), output="y")
    output = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    return build(b.nodes, b.inputs, [output], b.initializers, opset=opset)


def stays(layer: Layer, opset: int = 18) -> onnx.ModelProto:
    model = spoilt(layer, opset)
    result = onnxfuse.optimize(model)
    assert list(result.model.graph.node) == list(model.graph.node)
    return model


def sliced(starts: list[int], ends: list[int], axes: list[int], *steps: int) -> Layer:
    def layer(b: Builder, x: str) -> str:
        given = [b.constant(v) for v in (starts, ends, axes, *([list(steps)] if steps else []))]
        return b.op("Slice", x, *given)

    return layer


def padded(widths: object, *axes: int, value: object = 0.5) -> Layer:
    def layer(b: Builder, x: str) -> str:
        given = [b.constant(widths), b.constant(value)]
        return b.op("Pad", x, *given, *([b.constant(list(axes))] if axes else []))

    return layer


def parted(*sizes: int, axis: int = 1, outputs: int = 2, part: int = 0) -> Layer:
    return lambda b, x: b.ops("Split", x, b.constant(sizes), outputs=outputs, axis=axis)[part]


def gathered(*indices: int, axis: int = 1) -> Layer:
    return lambda b, x: b.op("Gather", x, b.constant(np.array(indices, np.int64)), axis=axis)


def normed(*lengths: int, **given: float) -> Layer:
    return lambda b, x: b.op("BatchNormalization", x, *map(b.positive, lengths), **given)


def weighted(op: str, *shape: int, bias: tuple[int, ...] = (), **given: object) -> Layer:
    return lambda b, x: b.op(op, x, b.random(*shape), *([b.random(*bias)] if bias else []), **given)


REFUSED: dict[str, tuple[Layer, str]] = {
    "Slice with an end too few": (
        sliced([1, 1], [5], [2, 3]),
        "its bounds, axes and steps do not fit each other",
    ),
    "Slice with an axis too few": (
        sliced([1, 1], [5, 5], [2]),
        "its bounds, axes and steps do not fit each other",
    ),
    "Slice with a step too many": (
        sliced([1], [5], [2], 1, 2),
        "its bounds, axes and steps do not fit each other",
    ),
    "Slice with step 0": (
        sliced([1], [3], [1], 0),
        "its bounds, axes and steps do not fit each other",
    ),
    "Slice of an axis twice": (
        sliced([1, 2], [5, 6], [2, -2]),
        "its bounds, axes and steps do not fit each other",
    ),
    "Slice of an axis that is not there": (
        sliced([1], [3], [5]),
        "its bounds, axes and steps do not fit each other",
    ),
    "Slice that keeps no channel": (sliced([3], [1], [1]), "it keeps nothing"),
    "Pad of an axis that is not there": (
        padded([1, 1], 6),
        "its widths are not constant, or not two for each axis",
    ),
    "Pad of an axis twice": (
        padded([1, 1, 1, 1], 2, -2),
        "its widths are not constant, or not two for each axis",
    ),
    "Pad with widths that are no integers": (
        padded([0.0, 0.0, np.nan, 1.0] * 2),
        "its widths are not constant, or not two for each axis",
    ),
    "Pad with no value": (padded([0, 0, 1, 1] * 2, value=np.zeros(0)), "its value has shape [0]"),
    "Pad with two values": (padded([0, 0, 1, 1] * 2, value=[0.5, 0.7]), "its value has shape [2]"),
    "Pad that leaves no channel": (padded([0, -2, 0, 0] * 2), "it keeps nothing"),
    "Pad that leaves less": (padded([0, -3, 0, 0] * 2), "it keeps nothing"),
    "Split into too few sizes": (
        parted(4, part=1),
        "its sizes [4] do not add up to 4 channels",
    ),
    "Split into too much": (parted(4, 4), "its sizes [4, 4] do not add up to 4 channels"),
    "Split into less than nothing": (
        parted(6, -2),
        "its sizes [6, -2] do not add up to 4 channels",
    ),
    "Split with a part of nothing": (parted(4, 0, part=1), "it keeps nothing"),
    "Split of an axis that is not there": (
        parted(2, 2, axis=5),
        "it does not split the channels, or their number is not known",
    ),
    "Gather of a channel that is not there": (
        gathered(1, 9),
        "it reads channels that are not there, of 4",
    ),
    "Gather of a channel before the first": (
        gathered(-5),
        "it reads channels that are not there, of 4",
    ),
    "Gather of nothing": (gathered(), "it keeps nothing"),
    "Gather of an axis that is not there": (
        gathered(1, axis=5),
        "it does not gather channels, or their number is not known",
    ),
    "Concat of an axis that is not there": (
        lambda b, x: b.op("Concat", x, x, axis=5),
        "it does not join channels",
    ),
    "Dropout whose mode is empty": (
        lambda b, x: b.op(
            "Dropout", x, b.constant(0.5), b.constant(np.zeros(0, bool), elem_type=9)
        ),
        "Dropout in training mode: export the model with model.eval()",
    ),
    "Norm with a mean of another length": (
        normed(C, C, C + 1, C),
        "its statistics have shapes [[4], [4], [5], [4]]",
    ),
    "ConvTranspose with a bias too short": (
        weighted("ConvTranspose", C, 3, 2, 2, bias=(3,), group=2),
        "its bias has shape [3], and it has 6 channels",
    ),
    "ConvTranspose with no bias": (
        weighted("ConvTranspose", C, 3, 2, 2, bias=(0,)),
        "its bias has shape [0], and it has 3 channels",
    ),
    "ConvTranspose with an output_padding too short": (
        weighted("ConvTranspose", C, 3, 2, 2, output_padding=[1]),
        "its attributes do not fit a weight of shape [4, 3, 2, 2]",
    ),
    "ConvTranspose with an output_padding below zero": (
        weighted("ConvTranspose", C, 3, 2, 2, output_padding=[-1, -1]),
        "its attributes do not fit a weight of shape [4, 3, 2, 2]",
    ),
    "ConvTranspose with pads below zero": (
        weighted("ConvTranspose", C, 3, 2, 2, pads=[-1] * 4),
        "its attributes do not fit a weight of shape [4, 3, 2, 2]",
    ),
    "AveragePool with pads below zero": (
        lambda b, x: b.op("AveragePool", x, kernel_shape=[2, 2], pads=[-1, 0, 0, 0]),
        "its attributes do not fit its input",
    ),
    "AveragePool over a trillion pixels": (
        lambda b, x: b.op("AveragePool", x, kernel_shape=[1 << 20] * 2),
        "its window is too large for a weight",
    ),
}


@pytest.mark.parametrize(("layer", "reason"), REFUSED.values(), ids=REFUSED)
def test_refuses_node_that_does_not_fit_its_input(layer, reason):
    model = stays(layer)
    op_type = model.graph.node[1].op_type
    assert refusal(model, op_type) == reason


STAYS: dict[str, Layer] = {
    "Norm of more channels": normed(*[C + 2] * 4),
    "Norm of one channel": normed(1, 1, 1, 1),
    "Norm with an epsilon that is no number": normed(C, C, C, C, epsilon=float("nan")),
    "Conv of more channels": weighted("Conv", 6, C + 1, 3, 3),
    "Conv of one axis": weighted("Conv", 6, C, 3),
    "Conv with a far stride": weighted("Conv", 6, C, 3, 3, strides=[MANY] * 2),
    "Conv with far taps": weighted("Conv", 6, C, 3, 3, dilations=[MANY] * 2),
    "ConvTranspose padded by more than its output": weighted(
        "ConvTranspose", C, 3, 2, 2, pads=[9] * 4
    ),
    "ConvTranspose with a far stride": weighted("ConvTranspose", C, 3, 2, 2, strides=[MANY] * 2),
    "ConvTranspose with far taps": weighted("ConvTranspose", C, 3, 2, 2, dilations=[MANY] * 2),
    "ConvTranspose with a wide output_padding": weighted(
        "ConvTranspose", C, 3, 2, 2, output_padding=[MANY] * 2
    ),
    "Conv with a padding whose name is no text": weighted("Conv", C, C, 3, 3, auto_pad=b"\xff\xd0"),
    "Pool with a padding whose name is no text": lambda b, x: b.op(
        "AveragePool", x, kernel_shape=[2, 2], auto_pad=b"\xff\xd0"
    ),
    "Transpose of too few axes": lambda b, x: b.op("Transpose", x, perm=[3, 2, 1]),
    "Transpose of an axis twice": lambda b, x: b.op("Transpose", x, perm=[0, 1, 1, 3]),
    "Transpose of an axis that is not there": lambda b, x: b.op("Transpose", x, perm=[0, 1, 2, 9]),
    "a factor of nothing": lambda b, x: b.op("Mul", x, b.constant(np.zeros((0, 1, 1)))),
    "a sum with nothing": lambda b, x: b.op("Sum", x, b.constant(np.zeros(0))),
    "Gemm of an image": weighted("Gemm", C, C, bias=(C,)),
    "MatMul with a number": lambda b, x: b.op("MatMul", x, b.constant(2.0)),
}


@pytest.mark.parametrize("layer", STAYS.values(), ids=STAYS)
def test_leaves_what_no_runtime_takes(layer):
    stays(layer)


def test_refuses_global_pool_of_a_matrix():
    b = Builder()
    y = b.op("Gemm", b.input("n", C), b.random(C, C), b.random(C))
    y = b.op("Relu", b.op("GlobalAveragePool", y), output="y")
    output = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    model = build(b.nodes, b.inputs, [output], b.initializers)
    assert list(onnxfuse.optimize(model).model.graph.node) == list(model.graph.node)


def test_refuses_conv_whose_kernel_shape_is_not_that_of_its_weight():
    model = stays(weighted("Conv", C, C, 3, 3, kernel_shape=[2, 2]))
    reasons = str(onnxfuse.optimize(model).report.refusals)
    assert "its attributes do not fit a weight of shape [4, 4, 3, 3]" in reasons


@pytest.mark.parametrize("width", [-1, -MANY, -(2**63)])
def test_refuses_conv_with_pads_below_zero(width):
    model = stays(weighted("Conv", C, C, 3, 3, pads=[1, width, 1, 1]))
    reasons = str(onnxfuse.optimize(model).report.refusals)
    assert "its attributes do not fit a weight of shape [4, 4, 3, 3]" in reasons


def test_refuses_conv_of_a_bias_of_four_axes():
    """A weight in the place of the bias."""
    model = stays(weighted("Conv", C, C, 3, 3, bias=(C, C, 1, 1)))
    reasons = str(onnxfuse.optimize(model).report.refusals)
    assert "its bias has shape [4, 4, 1, 1], and it has 4 channels" in reasons


def test_refuses_part_of_a_split_behind_the_last_channel():
    """Four channels in six parts of one."""
    stays(lambda b, x: b.ops("Split", x, outputs=6, axis=1, num_outputs=6)[5])


@pytest.mark.parametrize("dims", [("n", 0, 6, 6), ("n", 2**31 - 1, 6, 6), (0, C, 6, 6)])
def test_leaves_images_of_no_channel_or_of_absurdly_many(dims):
    """What is declared is not made."""
    b = Builder()
    y = b.op("Mul", b.op("Pad", b.input(*dims), b.constant([0, 0, 1, 1] * 2)), b.constant(0.7))
    y = b.op("AveragePool", b.op("Transpose", y, perm=[0, 1, 3, 2]), kernel_shape=[2, 2])
    model = b.model(b.op("Relu", y))
    result = onnxfuse.optimize(model)
    assert list(result.model.graph.node) == list(model.graph.node)


OPERANDS = [
    ("Mul", (1,), TensorProto.STRING),
    ("Add", (C, 1, 1), TensorProto.STRING),
    ("Div", (), TensorProto.STRING),
    ("Conv", (C, C, 1, 1), TensorProto.STRING),
    ("Conv", (C, C, 1, 1), TensorProto.INT64),
    ("ConvTranspose", (C, C, 1, 1), TensorProto.INT64),
]


@pytest.mark.parametrize(("op", "shape", "kind"), OPERANDS)
def test_leaves_numbers_beside_text_and_weights_that_are_integers(op, shape, kind):
    """What reads as a number in Python is none in ONNX."""
    b = Builder()
    x = b.conv(b.input("n", C, 6, 6), C, C, (1, 1))
    y = b.op("Relu", b.batch_norm(b.op(op, x, "given"), C), output="y")
    values = [b"2" if kind == TensorProto.STRING else 2] * int(np.prod(shape))
    given = helper.make_tensor("given", kind, shape, values)
    output = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    model = build(b.nodes, b.inputs, [output], [*b.initializers, given])
    kept = onnxfuse.optimize(model).model.graph.node
    assert [node for node in kept if node.op_type == op][-1] == model.graph.node[1]


@pytest.mark.parametrize("which", ["input", "output", "value_info"])
def test_folds_where_a_declared_element_type_is_missing(which):
    b = Builder()
    y = b.op("Mul", b.conv(b.input("n", C, 6, 6), C, C, output="t"), b.constant(0.7))
    model = b.model(b.op("Relu", y))
    known = [helper.make_tensor_value_info("t", TensorProto.FLOAT, ("n", C, 4, 4))]
    model.graph.value_info.extend(known)
    getattr(model.graph, which)[0].type.tensor_type.elem_type = TensorProto.UNDEFINED
    result = onnxfuse.optimize(model)
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Relu"]


RANKS: dict[str, Layer] = {
    "scale": lambda b, x: b.op("Add", b.op("Mul", x, b.random(C, 1, 1)), b.random(C)),
    "norm": lambda b, x: b.op("Mul", b.batch_norm(x, C), b.random(C, 1, 1)),
    "conv": lambda b, x: b.op("Mul", b.conv(x, C, C, (1, 1)), b.random(C, 1, 1)),
    "product": lambda b, x: b.op("Mul", b.op("MatMul", x, b.random(C, C)), b.random(C)),
    "channels": lambda b, x: b.batch_norm(b.op("Gather", x, b.constant([2, 0, 1, 3]), axis=1), C),
    "turned": lambda b, x: b.conv(b.op("Transpose", x, perm=[0, 2, 1, 3]), C, C, (1, 1)),
}


@pytest.mark.parametrize("layer", RANKS.values(), ids=RANKS)
@pytest.mark.parametrize("declared", [(C, C), (C, C, C), (C, C, C, C, C), ()])
@pytest.mark.parametrize("with_channels", [True, False])
def test_matches_where_a_model_declares_another_rank(layer, declared, with_channels):
    """A Reshape to what only a caller knows; every extent is equal, and four axes there are."""
    b = Builder()
    x = b.op("Relu", b.input("n", C, C, C))
    y = b.conv(x, C, C, (1, 1)) if with_channels else x
    shape = b.input("k", name="shape", elem_type=TensorProto.INT64)
    r = b.op("Reshape", y, shape, output="r")
    y = b.op("Relu", layer(b, r), output="y")
    known = [helper.make_tensor_value_info(r, TensorProto.FLOAT, declared)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = build(b.nodes, b.inputs, [output], b.initializers, known)
    fused = onnxfuse.optimize(model).model
    values = np.random.default_rng(3).standard_normal((C, C, C, C)).astype(np.float32)
    feeds = {"x": values, "shape": np.array([C, C, C, C])}
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]
    del fused.graph.value_info[:]
    (expected,), (actual,) = run(plain, feeds), run(fused, feeds)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
