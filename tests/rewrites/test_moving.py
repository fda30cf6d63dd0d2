"""Scales and shifts move to the layers that take them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import TensorProto

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import Folded, optimized

SIZES = ({"n": 1, "h": 7, "w": 6}, {"n": 3, "h": 5, "w": 9})
C = 4
Op = Callable[[Builder, str], str]


def scale(b: Builder, x: str) -> str:
    return b.op("Mul", x, b.positive(1, C, 1, 1))


def normalize(b: Builder, x: str) -> str:
    """A BatchNormalization that scales by positive numbers."""
    rest = b.random(C), b.random(C), b.positive(C)
    return b.op("BatchNormalization", x, b.positive(C), *rest)


def start(b: Builder, name: str = "x", channels: int = C) -> str:
    return b.op("Sigmoid", b.input("n", channels, "h", "w", name=name))


def attribute_or_input(b: Builder, since: int, values: list[int]) -> tuple[list[str], list[int]]:
    return ([b.constant(np.array(values))], []) if b.opset >= since else ([], values)


def means(b: Builder, x: str, keepdims: int = 1) -> str:
    names, axes = attribute_or_input(b, 18, [2, 3])
    given = {"axes": axes} if axes else {}
    return b.op("ReduceMean", x, *names, keepdims=keepdims, **given)


def enlarged(b: Builder, x: str) -> str:
    scales = np.array([1, 1, 3, 2], np.float32)
    if b.opset < 9:
        return b.op("Upsample", x, scales=scales.tolist())
    held = b.constant(scales, elem_type=TensorProto.FLOAT)
    if b.opset < 11:
        return b.op("Upsample" if b.opset < 10 else "Resize", x, held)
    mode = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return b.op("Resize", x, "", held, **mode)


def gated(b: Builder, x: str) -> str:
    return b.op("Mul", b.op("Tanh", b.input("n", C, 1, 1, name="g")), x)


POOL = {"kernel_shape": [3, 2], "strides": [2, 1]}
SCALES: dict[str, Op] = {
    "Relu": lambda b, x: b.op("Relu", x),
    "LeakyRelu": lambda b, x: b.op("LeakyRelu", x, alpha=0.3),
    "PRelu": lambda b, x: b.op("PRelu", x, b.random(C, 1, 1)),
    "AveragePool": lambda b, x: b.op(
        "AveragePool", x, **POOL, pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "Mul": gated,
    "Mul spatial": lambda b, x: b.op("Mul", x, b.op("Exp", b.input("n", 1, "h", "w", name="g"))),
    "Div": lambda b, x: b.op("Div", x, b.op("Exp", b.input("h", "w", name="g"))),
}
"""Nodes that factors go through."""

LINES: dict[str, Op] = {
    "MaxPool": lambda b, x: b.op("MaxPool", x, **POOL, pads=[2, 1, 1, 1]),
    "AveragePool": lambda b, x: b.op("AveragePool", x, **POOL, pads=[1, 1, 1, 0]),
    "GlobalAveragePool": lambda b, x: b.op("GlobalAveragePool", x),
    "GlobalMaxPool": lambda b, x: b.op("GlobalMaxPool", x),
    "ReduceMean": means,
    "Resize": enlarged,
}
"""Nodes that shifts go through too."""


def moved(b: Builder, y: str, *sizes: dict[str, int]) -> Folded:
    """Optimized, where one scale and shift moved."""
    known = all(node.op_type != "Upsample" for node in b.nodes) and b.opset != 10
    folded = optimized(b.model(y), *(sizes or SIZES), truth_runs=known)
    formulas = [fold.formula for fold in folded.report.folds]
    assert sum(formula.startswith("scale and shift") for formula in formulas) == 1, formulas
    return folded


@pytest.mark.parametrize("opset", [7, 10, 13, 18])
@pytest.mark.parametrize("name", SCALES)
def test_factors_move_forward(name, opset):
    b = Builder(opset)
    y = b.conv(SCALES[name](b, scale(b, start(b))), C, 5, pads=[1] * 4)
    (op_type, *_) = name.split()
    folded = moved(b, y)
    assert folded.ops["Conv"] == folded.ops[op_type] == 1
    assert folded.ops["Mul"] == (op_type == "Mul")


@pytest.mark.parametrize("opset", [7, 9, 10, 13, 18])
@pytest.mark.parametrize("name", LINES)
def test_shifts_move_forward_where_the_layer_pads_with_nothing(name, opset):
    b = Builder(opset)
    y = b.conv(LINES[name](b, normalize(b, start(b))), C, 5, (1, 1))
    folded = moved(b, y)
    assert folded.ops["Conv"] == 1
    assert folded.ops["BatchNormalization"] == 0
    assert sum(folded.ops.values()) == 3


@pytest.mark.parametrize("name", LINES)
def test_shifts_stay_where_the_layer_pads(name):
    b = Builder()
    y = b.conv(LINES[name](b, normalize(b, start(b))), C, 5, pads=[1] * 4)
    folded = optimized(b.model(y), *SIZES)
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


@pytest.mark.parametrize("name", [*SCALES, *LINES])
def test_they_move_backward(name):
    b = Builder()
    first = b.conv(start(b, channels=3), 3, C, pads=[1] * 4)
    passed = {**LINES, **SCALES}[name](b, first)
    last = normalize if name in LINES and name not in SCALES else scale
    folded = optimized(b.model(b.op("Tanh", last(b, passed))), *SIZES)
    if name.split()[0] in ("Mul", "Div"):  # two tensors are computed: there is no one way back
        assert folded.ops["Mul"] == 1 + (name != "Div")
        return
    assert folded.ops["Mul"] == folded.ops["BatchNormalization"] == 0
    assert sum(folded.ops.values()) == 4


@pytest.mark.parametrize("name", [*SCALES, *LINES])
def test_negative_factors_do_not_pass_what_keeps_the_larger(name):
    b = Builder()
    factors = b.constant(np.array([1.0, 2.0, -0.5, 1.5]).reshape(1, C, 1, 1))
    x = b.op("Mul", start(b), factors)
    y = b.conv({**LINES, **SCALES}[name](b, x), C, 5, (1, 1))
    folded = optimized(b.model(y), *SIZES)
    ordered = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "GlobalMaxPool")
    went = any("scale and shift" in fold.formula for fold in folded.report.folds)
    assert went == (name not in ordered)


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("name", SCALES)
def test_shifts_do_not_pass_what_only_factors_pass(name, op):
    b = Builder()
    x = b.op(op, start(b), b.random(1, C, 1, 1))
    y = b.conv(SCALES[name](b, x), C, 5, (1, 1))
    folded = optimized(b.model(y), *SIZES)
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


# Other layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_a_concat_widens_the_line(first):
    b = Builder()
    one, other = normalize(b, start(b)), start(b, "z", 3)
    joined = b.op("Concat", *((one, other) if first else (other, one)), axis=1)
    folded = moved(b, b.conv(joined, C + 3, 5))
    assert folded.ops == {"Sigmoid": 2, "Concat": 1, "Conv": 1}


def test_every_branch_of_a_concat_moves():
    b = Builder()
    branches = [normalize(b, b.op("Relu", b.input("n", C, "h", "w", name=x))) for x in "xyz"]
    branches.append(branches[0])
    folded = optimized(b.model(b.conv(b.op("Concat", *branches, axis=-3), 4 * C, 5)), *SIZES)
    assert folded.ops == {"Relu": 3, "Concat": 1, "Conv": 1}
    assert sum("scale and shift" in fold.formula for fold in folded.report.folds) == 3


def test_a_branch_that_is_joined_twice_moves_once():
    b = Builder()
    x, z = normalize(b, start(b)), start(b, "z", 3)
    folded = moved(b, b.conv(b.op("Concat", x, z, x, axis=1), 2 * C + 3, 5))
    assert folded.ops == {"Sigmoid": 2, "Concat": 1, "Conv": 1}


@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
@pytest.mark.parametrize("way", ["Flatten", "Reshape", "Reshape by sizes"])
def test_flattened_images_repeat_it(way, size):
    b = Builder()
    n = 2 if way.endswith("sizes") else "n"
    x = normalize(b, b.op("Sigmoid", b.input(n, C, *size)))
    count = C * size[0] * size[1]
    if way == "Flatten":
        flat = b.op("Flatten", x)
    else:
        flat = b.op("Reshape", x, b.constant([2, count] if n == 2 else [0, -1]))
    folded = moved(b, b.op("Gemm", flat, b.random(count, 5), b.random(5)), {"n": 1}, {"n": 3})
    assert folded.ops == {"Sigmoid": 1, way.split()[0]: 1, "Gemm": 1}


def test_pooled_and_squeezed():
    b = Builder(13)
    x = means(b, normalize(b, start(b)))
    flat = b.op("Squeeze", x, b.constant([2, 3]))
    folded = moved(b, b.op("Gemm", flat, b.random(5, C), b.random(5), transB=1))
    assert folded.ops == {"Sigmoid": 1, "ReduceMean": 1, "Squeeze": 1, "Gemm": 1}


def test_a_mean_that_drops_axes():
    b = Builder()
    y = b.op("Gemm", means(b, normalize(b, start(b)), 0), b.random(C, 5), b.random(5))
    assert moved(b, y).ops == {"Sigmoid": 1, "ReduceMean": 1, "Gemm": 1}


@pytest.mark.slow
def test_channels_behind():
    """(N, C, H, W) to (N, H W, C), as vision transformers do."""
    b = Builder()
    rows = b.op("Reshape", normalize(b, start(b)), b.constant([0, C, -1]))
    y = b.op("MatMul", b.op("Transpose", rows, perm=[0, 2, 1]), b.random(C, 5))
    folded = moved(b, b.op("Softmax", y))
    assert folded.ops["BatchNormalization"] == folded.ops["Mul"] == 0
    assert folded.ops["MatMul"] == folded.ops["Reshape"] == folded.ops["Transpose"] == 1


def test_a_factor_of_the_last_axis():
    b = Builder()
    x = b.op("Mul", b.op("Sigmoid", b.input("n", 3, C)), b.positive(C))
    folded = moved(b, b.op("MatMul", b.op("Relu", x), b.random(C, 5)), {"n": 2})
    assert folded.ops == {"Sigmoid": 1, "Relu": 1, "MatMul": 1}


def test_from_the_left_of_a_product():
    b = Builder()
    x = b.op("Mul", b.op("Sigmoid", b.input("n", C, 3)), b.positive(C, 1))
    folded = moved(b, b.op("MatMul", b.random(5, C), b.op("Relu", x)), {"n": 2})
    assert folded.ops == {"Sigmoid": 1, "Relu": 1, "MatMul": 1}


def test_several_layers_take_it_in():
    b = Builder()
    x = b.op("Relu", scale(b, start(b)))
    y = b.op("Mul", b.conv(x, C, 5, (1, 1)), b.op("Tanh", b.conv(x, C, 5, (1, 1))))
    folded = moved(b, y)
    assert folded.ops == {"Sigmoid": 1, "Relu": 1, "Conv": 2, "Tanh": 1, "Mul": 1}


@pytest.mark.parametrize("dims", [2, 3, 5])
def test_other_ranks(dims):
    b = Builder()
    space = "dhw"[: dims - 2]
    x = b.op("Sigmoid", b.input("n", C, *space))
    x = b.op("Relu", b.op("Mul", x, b.positive(C, *(1,) * (dims - 2))))
    if dims == 2:
        y = b.op("Gemm", x, b.random(C, 5), b.random(5))
    else:
        y = b.conv(x, C, 5, (3,) * (dims - 2), pads=[1] * 2 * (dims - 2))
    folded = moved(b, y, {"n": 2, "d": 4, "h": 3, "w": 5})
    assert folded.ops["Mul"] == 0


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_types(kind):
    b = Builder(17, kind)
    x = b.op("Relu", scale(b, start(b)))
    last = b.conv(x, C, 5) if kind == TensorProto.FLOAT16 else None
    if last is None:
        last = b.op("Gemm", means(b, x, 0), b.random(C, 5), b.random(5))
    assert moved(b, last).ops["Mul"] == 0


# What stays --------------------------------------------------------------------------------------


def stays(
    b: Builder, *outputs: str, sizes: Sequence[dict[str, int]] = SIZES, **options: object
) -> None:
    folded = optimized(b.model(*outputs), *sizes, **options)
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


def test_what_others_read_stays():
    b = Builder()
    x = scale(b, start(b))
    stays(b, b.conv(b.op("Relu", x), C, 5), b.op("Tanh", x))


def test_what_is_kept_stays():
    b = Builder()
    x = scale(b, start(b))
    y = b.conv(b.op("Relu", x), C, 5)
    stays(b, y, keep=[x])


@pytest.mark.parametrize("name", ["Mul", "Relu", "Conv"])
def test_what_is_skipped_stays(name):
    b = Builder()
    stays(b, b.conv(b.op("Relu", scale(b, start(b))), C, 5), skip=[name])


def test_a_layer_takes_it_in_where_it_is():
    b = Builder()
    x = scale(b, b.conv(start(b), C, C))
    folded = optimized(b.model(b.conv(b.op("Relu", x), C, 5)), *SIZES)
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)
    assert folded.ops == {"Sigmoid": 1, "Conv": 2, "Relu": 1}


def test_weights_that_layers_share_take_nothing_in():
    b = Builder()
    weight = b.random(C, C, 3, 3)
    x = b.op("Relu", scale(b, start(b)))
    stays(b, b.op("Conv", b.op("Relu", b.op("Conv", x, weight)), weight))


def test_not_every_reader_is_a_layer():
    b = Builder()
    x = b.op("Relu", scale(b, start(b)))
    stays(b, b.op("Mul", b.conv(x, C, C, (1, 1)), x))


def test_a_square_is_not_linear():
    b = Builder()
    x = scale(b, start(b))
    stays(b, b.conv(b.op("Mul", x, x), C, 5))


def test_divisors_stay():
    b = Builder()
    y = b.op("Div", b.op("Exp", b.input("n", C, "h", "w", name="z")), scale(b, start(b)))
    stays(b, b.conv(y, C, 5))


def test_slopes_stay():
    b = Builder()
    slope = b.op("Mul", b.op("Sigmoid", b.input("n", C, 1, 1, name="s")), b.positive(1, C, 1, 1))
    stays(b, b.conv(b.op("PRelu", start(b), slope), C, 5))


def test_a_factor_that_is_broadcast_stays():
    """One image of factors for many: the scaled tensor becomes as large as the other."""
    b = Builder()
    small = b.op("Mul", b.op("Sigmoid", b.input(1, C, 1, 1, name="s")), b.positive(1, C, 1, 1))
    stays(b, b.conv(b.op("Mul", small, start(b)), C, 5))


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_shape": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
    ],
)
def test_windows_that_may_be_empty_stay(given):
    b = Builder()
    stays(b, b.conv(b.op("MaxPool", scale(b, start(b)), **given), C, 5, (1, 1)))


def test_a_mean_over_channels_stays():
    b = Builder(13)
    x = b.op("ReduceMean", scale(b, start(b)), axes=[1], keepdims=1)
    stays(b, b.conv(x, 1, 5))


def test_a_concat_along_another_axis_stays():
    b = Builder()
    x = b.op("Concat", scale(b, start(b)), b.input("n", C, 2, "w", name="z"), axis=2)
    stays(b, b.conv(x, C, 5))


def test_a_transposed_gemm_stays():
    b = Builder()
    x = b.op("Relu", b.op("Mul", b.op("Sigmoid", b.input(3, C)), b.positive(C)))
    stays(b, b.op("Gemm", x, b.random(3, 5), b.random(5), transA=1))


def test_channels_mixed_with_rows_stay():
    b = Builder()
    x = b.op("Reshape", normalize(b, b.op("Sigmoid", b.input(2, C, 3, 2))), b.constant([2, 8, 3]))
    stays(b, b.op("MatMul", x, b.random(3, 5)))


def test_what_it_passes_keeps_its_name():
    b = Builder()
    y = b.conv(b.op("Relu", scale(b, start(b))), C, 5)
    (name,) = [node.name for node in b.nodes if node.op_type == "Relu"]
    assert moved(b, y).node("Relu").name == name


def test_a_transpose_that_leaves_out_the_channels_stays():
    b = Builder()
    y = b.op("Transpose", scale(b, start(b)), perm=[0, 0, 2, 3])
    result = onnxfuse.optimize(b.model(b.conv(y, C, 5)))
    assert [n.op_type for n in result.model.graph.node] == ["Sigmoid", "Mul", "Transpose", "Conv"]
