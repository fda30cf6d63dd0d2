"""Scales and shifts that stay where they are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxfuse
from onnxfuse.graph import Graph, TensorType
from onnxfuse.rewrites.lines import Line, behind, line
from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.test_moving import SIZES, C, gated, moved, normalize, scale, start, stays

H, W = 6, 7


def columns(b: Builder, x: str) -> str:
    """A factor for every column."""
    return b.op("Mul", x, b.positive(W))


def still(b: Builder) -> str:
    return b.op("Sigmoid", b.input("n", C, H, W))


def of_rank_4(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an output that is declared to have that rank, and nothing else."""
    shape = model.graph.output[0].type.tensor_type.shape
    for _ in range(4 - len(shape.dim)):
        shape.dim.add()
    return model


# Along another axis ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "passed",
    [
        lambda b, x: b.op("MaxPool", x, kernel_shape=[2, 2]),
        lambda b, x: b.op("AveragePool", x, kernel_shape=[2, 2]),
        lambda b, x: b.op("GlobalAveragePool", x),
        lambda b, x: b.op("GlobalMaxPool", x),
        lambda b, x: b.op("Relu", x),
        lambda b, x: b.op("ReduceMean", x, b.constant([3]), keepdims=1),
        lambda b, x: b.op("Concat", x, b.op("Exp", b.input("n", C, H, W, name="z")), axis=1),
    ],
)
def test_factors_of_columns_stay(passed):
    b = Builder(18)
    y = passed(b, columns(b, still(b)))
    channels = 2 * C if b.nodes[-1].op_type == "Concat" else C
    stays(b, b.conv(y, channels, 5, (1, 1)))


def test_factors_of_columns_do_not_pass_an_upsampling():
    b = Builder()
    mode = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    scales = b.constant(np.array([1, 1, 2, 2], np.float32), elem_type=TensorProto.FLOAT)
    y = b.op("Resize", columns(b, still(b)), "", scales, **mode)
    stays(b, b.conv(y, C, 5, (1, 1)))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_factors_of_columns_do_not_pass_a_pooling_of_columns(op):
    b = Builder()
    y = b.op(op, columns(b, still(b)), kernel_shape=[1, 2])
    stays(b, b.op("MatMul", y, b.random(W - 1, 5)))


def test_factors_of_columns_do_not_go_back_into_a_layer():
    b = Builder()
    x = b.op("Relu", b.conv(still(b), C, C, pads=[1] * 4))
    stays(b, b.op("Tanh", columns(b, x)))


@pytest.mark.parametrize("left", [True, False])
def test_factors_of_rows_do_not_go_back_into_a_product(left):
    """(n, 5, 3) = w @ x has its channels on the axis in front of the last, x @ w on the last."""
    b = Builder()
    x = b.op("Sigmoid", b.input("n", 5, 3))
    y = b.op("MatMul", b.random(5, 5), x) if left else b.op("MatMul", x, b.random(3, 3))
    factors = b.positive(3) if left else b.positive(5, 1)
    stays(b, b.op("Tanh", b.op("Mul", b.op("Relu", y), factors)))


def test_factors_of_rows_do_not_go_back_behind_a_transpose():
    b = Builder()
    x = b.op("Transpose", b.op("Relu", b.conv(still(b), C, H, (1, 1))), perm=[0, 2, 3, 1])
    stays(b, b.op("Tanh", b.op("Mul", x, b.positive(H, 1, 1))))


@pytest.mark.parametrize("left", [True, False])
def test_factors_of_rows_do_not_go_into_a_product(left):
    b = Builder()
    x = b.op("Sigmoid", b.input("n", 5, 3))
    y = b.op("Relu", b.op("Mul", x, b.positive(3) if left else b.positive(5, 1)))
    stays(b, b.op("MatMul", *((b.random(4, 5), y) if left else (y, b.random(3, 4)))))


# What is not known -------------------------------------------------------------------------------


def test_what_has_no_rank_stays():
    b = Builder()
    shape = b.input(None, name="s", elem_type=TensorProto.INT64)
    x = b.op("Mul", b.op("Reshape", b.op("Sigmoid", b.input("n", C)), shape), b.positive(C, 1, 1))
    y = b.conv(b.op("Relu", b.op("Relu", x)), C, 5, (1, 1))
    feeds = {"x": np.ones((2, C), np.float32), "s": np.array([2, C, 1, 1])}
    folded = optimized(of_rank_4(b.model(y)), feeds=[feeds])
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


def test_a_branch_whose_channels_are_not_known_is_joined():
    b = Builder()
    other = b.op("Sigmoid", b.input("n", "c", "h", "w", name="z"))
    y = b.conv(b.op("Concat", scale(b, start(b)), other, axis=1), C + 2, 5)
    folded = optimized(b.model(y), {"n": 1, "c": 2, "h": 6, "w": 5})
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


@pytest.mark.parametrize("op", ["Mul", "PRelu"])
def test_the_other_operand_has_no_shape(op):
    b = Builder()
    shape = b.input(None, name="s", elem_type=TensorProto.INT64)
    other = b.op("Reshape", b.op("Sigmoid", b.input("m", name="g")), shape)
    y = b.conv(b.op(op, scale(b, start(b)), other), C, 5, (1, 1))
    feeds = {
        "x": np.ones((2, C, 3, 3), np.float32),
        "g": np.full(C, 0.3, np.float32),
        "s": np.array([C, 1, 1]),
    }
    folded = optimized(of_rank_4(b.model(y)), feeds=[feeds])
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


def test_the_other_factor_has_more_dimensions():
    b = Builder()
    factor = b.op("Sigmoid", b.input(1, 1, 1, 1, 1, name="g"))
    y = b.op("Mul", scale(b, start(b)), factor)
    stays(
        b,
        b.conv(b.op("Reshape", y, b.constant([-1, C, 6, 6])), C, 5),
        sizes=({"n": 1, "h": 6, "w": 6},),
    )


def test_nothing_is_known_of_what_it_is_reshaped_to():
    b = Builder()
    shape = b.input("r", name="s", elem_type=TensorProto.INT64)
    x = normalize(b, b.op("Sigmoid", b.input(2, C, 3, 2)))
    y = b.op("Gemm", b.op("Reshape", x, shape), b.random(C * 6, 5), b.random(5))
    feeds = {"x": np.ones((2, C, 3, 2), np.float32), "s": np.array([2, C * 6])}
    folded = optimized(b.model(y), feeds=[feeds])
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


@pytest.mark.parametrize("kind", [0, TensorProto.FLOAT])
def test_nothing_is_known_of_its_type(kind):
    b = Builder()
    y = scale(b, b.input(2, C, 3, 3))
    graph = Graph(b.model(y).graph, 17, 8, types=dict.fromkeys("x", TensorType(kind, (2, C, 3, 3))))
    graph.types = {**graph.types, y: graph.types["x"]}
    assert (line(graph, 0) is None) == (kind == 0)


@pytest.mark.parametrize("rank", [None, 4])
def test_nothing_is_known_of_its_rank_where_it_is_reshaped(rank):
    b = Builder()
    y = b.op("Flatten", b.input(2, C, 3, 3))
    types = {"x": TensorType(1, (2, C, 3, 3) if rank else None), y: TensorType(1, (2, 9 * C))}
    graph = Graph(b.model(y).graph, 17, 8, types=types)
    factors = Line(np.arange(1.0, C + 1), np.zeros(C), axis=1, rank=4)
    assert (behind(graph, 0, "x", factors) is None) == (rank is None)


@pytest.mark.parametrize("mode", ["SAME", "", "VALID"])
def test_a_pooling_that_pads_in_a_way_that_is_none(mode):
    b = Builder()
    y = b.op("MaxPool", scale(b, start(b)), kernel_shape=[2, 2], auto_pad=mode)
    result = onnxfuse.optimize(b.model(b.conv(y, C, 5, (1, 1))))
    went = any("scale and shift" in fold.formula for fold in result.report.folds)
    assert went == (mode == "VALID")


@pytest.mark.parametrize("front", [None, 2])
def test_nothing_is_known_of_the_front(front):
    """(n, 6, 4) as rows of 6: their columns are no channels."""
    b = Builder()
    y = b.op("Reshape", b.input(front, 6, 4), b.constant([-1, 6]))
    types = {"x": TensorType(1, (front, 6, 4)), y: TensorType(1, (front and 8, 6))}
    graph = Graph(b.model(y).graph, 17, 8, types=types)
    factors = Line(np.arange(1.0, 7.0), np.zeros(6), axis=1, rank=3)
    assert behind(graph, 0, "x", factors) is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_shape_that_is_computed(whole):
    """Where inference knows the result, a probe does not."""
    b = Builder()
    x = b.op("Sigmoid", b.input("n", C, 3, 2))
    count = b.op("Shape", x)
    first = b.op("Gather", count, b.constant([0]))
    rest = b.constant([C * 6]) if whole else b.op("Gather", count, b.constant([1]))
    rest = rest if whole else b.op("Mul", rest, b.constant([6]))
    flat = b.op("Reshape", normalize(b, x), b.op("Concat", first, rest, axis=0))
    model = b.model(b.op("Gemm", flat, b.random(C * 6, 5), b.random(5)))
    folded = optimized(model, {"n": 1}, {"n": 3})
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)
    assert "holds is not known" in folded.reasons


@pytest.mark.slow
def test_windows_that_reach_too_far_for_a_probe():
    b = Builder()
    y = b.op("MaxPool", scale(b, start(b)), kernel_shape=[900, 900])
    folded = optimized(b.model(b.conv(y, C, 5, (1, 1))), {"n": 1, "h": 900, "w": 901})
    assert "reach too far" in folded.reasons


def test_what_is_too_large_to_be_reshaped_in_a_probe():
    b = Builder()
    x = b.op("Mul", b.op("Sigmoid", b.input(1, C, 600, 600)), b.positive(C, 1, 1))
    rows = b.op("Reshape", b.op("Relu", x), b.constant([1, C, -1]))
    folded = optimized(b.model(b.op("MatMul", b.random(5, C), rows)))
    assert "too large" in folded.reasons


def test_what_is_large_and_not_reshaped_is_proved_on_less():
    b = Builder()
    x = b.op("Mul", b.op("Sigmoid", b.input(1, C, 600, 600)), b.positive(C, 1, 1))
    folded = moved(b, b.conv(b.op("Relu", x), C, 2, (1, 1)), {})
    (fold,) = [fold for fold in folded.report.folds if "scale and shift" in fold.formula]
    assert max(max(shape) for shape in fold.certificate.shapes) < 100


# Nodes that do something else --------------------------------------------------------------------


def test_a_pooling_that_tells_where_its_largest_were_stays():
    b = Builder()
    y, where = b.ops("MaxPool", scale(b, start(b)), outputs=2, kernel_shape=[2, 2])
    model = b.model(b.conv(y, C, 5), where, types={where: TensorProto.INT64})
    folded = optimized(model, *SIZES)
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)
    assert "certified" not in folded.reasons


def test_a_pooling_that_pads_more_than_it_covers():
    """No runtime takes it."""
    b = Builder()
    y = b.op("MaxPool", scale(b, start(b)), kernel_shape=[2, 2], pads=[2, 2, 2, 2])
    result = onnxfuse.optimize(b.model(b.conv(y, C, 5, (1, 1))))
    assert not any("scale and shift" in fold.formula for fold in result.report.folds)


def test_a_map_of_factors_is_not_passed():
    """It may be a scale itself, which joins this one."""
    b = Builder()
    y = b.op("Mul", scale(b, still(b)), b.random(C, H, W))
    stays(b, b.conv(y, C, 5))


def test_a_mean_over_everything_stays():
    b = Builder()
    y = b.op("Mul", b.conv(start(b, "z"), C, C), b.op("ReduceMean", scale(b, start(b))))
    stays(b, y)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_a_resize_that_blends_stays(mode):
    b = Builder()
    scales = b.constant(np.array([1, 1, 2, 2], np.float32), elem_type=TensorProto.FLOAT)
    y = b.op("Resize", scale(b, start(b)), "", scales, mode=mode)
    folded = optimized(b.model(b.conv(y, C, 5)), *SIZES, truth_runs=False)
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


@pytest.mark.parametrize("op", ["SAME_UPPER", "pads"])
def test_averages_that_count_padding_do_not_let_shifts_through(op):
    b = Builder()
    given = {"auto_pad": op} if op != "pads" else {"pads": [1, 1, 1, 1]}
    x = b.op(
        "AveragePool", normalize(b, start(b)), kernel_shape=[3, 3], count_include_pad=1, **given
    )
    stays(b, b.conv(x, C, 5, (1, 1)))


def test_the_half_of_a_gelu_stays():
    b = Builder()
    x = b.op("Sigmoid", b.input("n", C, "h", "w"))
    gate = b.op("Add", b.op("Erf", b.op("Div", x, b.constant(1.4142135))), b.constant(1.0))
    stays(b, b.conv(b.op("Mul", b.op("Mul", x, b.constant(0.5)), gate), C, 5, (1, 1)))


# Layers ------------------------------------------------------------------------------------------


def test_behind_a_layer_and_in_front_of_one():
    """The second takes it in where it is."""
    b = Builder()
    x = b.op("Relu", b.conv(start(b), C, C))
    folded = optimized(b.model(b.conv(scale(b, x), C, 5)), *SIZES)
    assert folded.ops == {"Sigmoid": 1, "Conv": 2, "Relu": 1}
    assert not any("scale and shift" in fold.formula for fold in folded.report.folds)


def test_an_output_in_front_of_a_layer():
    b = Builder()
    x = b.op("Relu", scale(b, start(b)))
    stays(b, b.conv(x, C, 5), x)


def test_a_layer_that_transposes_takes_no_shift():
    b = Builder()
    x = b.op("MaxPool", normalize(b, start(b)), kernel_shape=[2, 2])
    stays(b, b.op("ConvTranspose", x, b.random(C, 5, 3, 3)))


def test_a_layer_that_transposes_takes_a_factor():
    b = Builder()
    x = b.op("MaxPool", scale(b, start(b)), kernel_shape=[2, 2])
    folded = moved(b, b.op("ConvTranspose", x, b.random(C, 5, 3, 3)))
    assert folded.ops["Mul"] == 0


def test_a_weight_that_is_computed():
    b = Builder()
    weight = b.op(
        "Relu", b.op("Mul", b.op("Sigmoid", b.input(5, C, 3, 3, name="w_")), b.positive(C, 1, 1))
    )
    image = b.constant(b.values(1, C, 6, 6))
    stays(b, b.op("Conv", image, weight))


def test_a_layer_whose_weight_is_computed():
    b = Builder()
    weight = b.op("Sigmoid", b.input(5, C, 3, 3, name="w_"))
    stays(b, b.op("Conv", b.op("Relu", scale(b, start(b))), weight))


def test_no_layer_is_in_front():
    b = Builder()
    stays(b, b.op("Tanh", scale(b, b.op("Relu", b.input("n", C, "h", "w")))))


def test_a_layer_in_front_that_others_read():
    b = Builder()
    x = b.conv(start(b), C, C, pads=[1] * 4)
    stays(b, b.op("Add", b.op("Tanh", scale(b, b.op("Relu", x))), b.op("Cos", x)))


def test_a_node_in_front_that_others_read():
    b = Builder()
    x = b.op("Relu", b.conv(start(b), C, C, pads=[1] * 4))
    stays(b, b.op("Add", b.op("Tanh", scale(b, x)), b.op("Cos", x)))


def test_a_node_in_front_that_is_skipped():
    b = Builder()
    x = b.op("Relu", b.conv(start(b), C, C, pads=[1] * 4))
    stays(b, b.op("Tanh", scale(b, x)), skip=["Relu"])


def test_two_tensors_lead_to_it():
    b = Builder()
    x = b.conv(start(b), C, C, pads=[1] * 4)
    stays(b, b.op("Tanh", scale(b, gated(b, x))))


def test_each_of_two_in_a_row_moves_once():
    b = Builder()
    x = b.op("Relu", b.conv(start(b), C, C, pads=[1] * 4))
    folded = optimized(b.model(b.op("Tanh", scale(b, scale(b, x)))), *SIZES)
    went = [fold for fold in folded.report.folds if "scale and shift" in fold.formula]
    assert len(went) == 2
    assert folded.ops["Mul"] == 0


# Types -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-7, 1e7])
def test_constants_that_half_precision_does_not_hold(size):
    """Joined with others, a BatchNormalization becomes a Mul and an Add."""
    b = Builder(17, TensorProto.FLOAT16)
    variance = b.constant(np.full(C, 1e-6 if size > 1 else 6e4))
    gamma = b.constant(np.full(C, 6e4 if size > 1 else 1e-4))
    rest = b.constant(np.zeros(C)), b.constant(np.zeros(C))
    x = b.op("BatchNormalization", start(b), gamma, *rest, variance, epsilon=0.0)
    y = b.conv(b.op("Concat", x, start(b, "z", 2), axis=1), C + 2, 5)
    model = b.model(y)
    report = onnxfuse.optimize(model).report
    assert not any("scale and shift" in fold.formula for fold in report.folds)
    assert any("cannot be written in float16" in refused.reason for refused in report.refusals)
