"""Denormal weights that nothing is folded into become zero, where nobody can see it."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

import onnxfuse
from onnxfuse.report.html import optimize_page
from onnxfuse.report.terminal import show
from tests.lift.building import Builder

TINY = 1e-39
FLOAT = TensorProto.FLOAT


def spoilt(b: Builder, *shape: int) -> np.ndarray:
    """Weights of which every fifth is denormal."""
    values = b.values(*shape)
    values.reshape(-1)[::5] *= TINY
    return values


def flushed(model: onnx.ModelProto, name: str = "w") -> tuple[int, np.ndarray]:
    """How many numbers the report says were set to zero, and the weight."""
    before = model.SerializeToString()
    result = onnxfuse.optimize(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    again = onnxfuse.optimize(result.model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    assert not again.report.flushed
    tensors = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    return result.report.flushed.get(name, 0), tensors[name].astype(np.float64)


def layer(b: Builder, kind: str) -> tuple[str, int]:
    """A layer whose weight is named w, between activations; and the weight's size."""
    image = b.op("Relu", b.input("n", 6, "h", "w")) if kind.startswith("Conv") else ""
    rows = "" if image else b.op("Relu", b.input("n", 6))
    shape, make = {
        "Conv": ((4, 6, 3, 3), lambda w: b.op("Conv", image, w)),
        "Conv, groups": ((4, 3, 3, 3), lambda w: b.op("Conv", image, w, group=2)),
        "ConvTranspose": ((6, 4, 2, 2), lambda w: b.op("ConvTranspose", image, w)),
        "ConvTranspose, groups": ((6, 2, 2, 2), lambda w: b.op("ConvTranspose", image, w, group=2)),
        "Gemm": ((6, 8), lambda w: b.op("Gemm", rows, w)),
        "Gemm, transB": ((8, 6), lambda w: b.op("Gemm", rows, w, transB=1)),
        "Gemm, first": ((8, 6), lambda w: b.op("Gemm", w, rows, transB=1)),
        "Gemm, first, transA": ((6, 8), lambda w: b.op("Gemm", w, rows, transA=1, transB=1)),
        "MatMul": ((6, 8), lambda w: b.op("MatMul", rows, w)),
        "MatMul, first": ((8, "n"), lambda w: b.op("MatMul", w, rows)),
        "MatMul, vector": ((6,), lambda w: b.op("MatMul", rows, w)),
    }[kind]
    shape = tuple(5 if dim == "n" else dim for dim in shape)
    return make(b.constant(spoilt(b, *shape), "w")), int(np.prod(shape))


KINDS = ["Conv", "Conv, groups", "ConvTranspose", "ConvTranspose, groups", "Gemm", "Gemm, transB"]
KINDS += ["Gemm, first", "Gemm, first, transA", "MatMul", "MatMul, first", "MatMul, vector"]


@pytest.mark.parametrize("kind", KINDS)
def test_denormal_weights_of_a_layer_become_zero(kind):
    b = Builder()
    y, size = layer(b, kind)
    count, weight = flushed(b.model(b.op("Relu", y)))
    assert count == -(-size // 5)
    assert np.count_nonzero(weight) == size - count


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_as_small_as_they_are_keeps_them_all(kind):
    b = Builder()
    y, size = layer(b, kind)
    model = b.model(b.op("Relu", y))
    weight = model.graph.initializer[0]
    values = np.array(numpy_helper.to_array(weight), np.float64)
    # The weights of one output channel, in the layout of each operator.
    channel = {
        "Conv": np.s_[1],
        "ConvTranspose": np.s_[:, 1],
        "ConvTranspose, groups": np.s_[3:, 1],
        "Gemm": np.s_[:, 1],
        "Gemm, first, transA": np.s_[:, 1],
        "MatMul": np.s_[:, 1],
        "MatMul, vector": np.s_[:],
    }.get(kind, np.s_[1])
    values[channel] = np.sign(values[channel]) * 1e-34
    values[channel].reshape(-1)[0] = TINY
    if kind == "MatMul, vector":
        values[0] = TINY
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values.astype(np.float32), "w"))
    count, kept = flushed(model)
    assert count == 0
    assert np.count_nonzero(kept) == size


def test_a_channel_of_zeros_keeps_nothing():
    b = Builder()
    weight = spoilt(b, 4, 6, 3, 3)
    weight[2] = 0.0
    x = b.op("Relu", b.input("n", 6, "h", "w"))
    model = b.model(b.op("Relu", b.op("Conv", x, b.constant(weight, "w"))))
    assert flushed(model)[0] == np.count_nonzero(np.abs(weight[[0, 1, 3]]) < 1e-38)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(FLOAT, 44), (TensorProto.BFLOAT16, 44), (TensorProto.FLOAT16, 0)],
)
def test_what_is_denormal_in_float16_stays(kind, expected):
    b = Builder(22, kind)
    values = b.values(4, 6, 3, 3)
    values.reshape(-1)[::5] *= 1e-6 if kind == TensorProto.FLOAT16 else TINY
    x = b.op("Relu", b.input("n", 6, "h", "w"))
    model = b.model(b.op("Relu", b.op("Conv", x, b.constant(values, "w"))))
    count, weight = flushed(model)
    assert count == expected
    assert np.count_nonzero(weight) == weight.size - expected


def test_denormals_of_double_precision_become_zero():
    b = Builder(17, TensorProto.DOUBLE)
    values = b.values(6, 8)
    values[0] *= 1e-310
    x = b.op("Relu", b.input("n", 6))
    assert flushed(b.model(b.op("MatMul", x, b.constant(values, "w"))))[0] == 8


def test_integers_are_no_weights():
    b = Builder(17, TensorProto.INT32)
    x = b.input("n", 6)
    y = b.op("MatMul", x, b.constant(np.arange(12).reshape(6, 2), "w", TensorProto.INT32))
    assert flushed(b.model(b.op("MatMul", y, b.constant([[3], [4]], elem_type=6))))[0] == 0


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("Conv", (4, 6), {}),
        ("ConvTranspose", (6, 4), {}),
        ("ConvTranspose", (6, 2, 3, 3), {"group": 0}),
        ("ConvTranspose", (6, 2, 3, 3), {"group": 4}),
        ("Gemm", (6,), {}),
    ],
)
def test_what_is_no_weight_of_the_operator_stays(op, shape, attributes):
    b = Builder()
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    w = numpy_helper.from_array(spoilt(b, *shape).astype(np.float32), "w")
    graph = onnx.GraphProto(name="g", node=[node], initializer=[w])
    graph.input.append(helper.make_tensor_value_info("x", FLOAT, None))
    graph.output.append(helper.make_tensor_value_info("y", FLOAT, None))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert not onnxfuse.optimize(model).report.flushed


def used_otherwise(b: Builder, how: str) -> onnx.ModelProto:
    x = b.op("Relu", b.input("n", 6, 6))
    weight = b.constant(spoilt(b, 6, 6), "w")
    outputs = [b.op("Relu", b.op("MatMul", x, weight))]
    if how == "a sum":
        outputs.append(b.op("Relu", b.op("Add", x, weight)))
    elif how == "an output":
        outputs.append(weight)
    elif how == "a body":
        outputs.append(inside(b, "Mul"))
    model = b.model(*outputs)
    if how == "an input":
        model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [6, 6]))
    return model


def inside(b: Builder, op: str) -> str:
    """An If that reads the weight w in one of its bodies."""
    bodies = {}
    for name in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(f"{name}_out", FLOAT, None)
        node = helper.make_node(op, ["x", "w"], [f"{name}_out"])
        bodies[name] = helper.make_graph([node], name, [], [out])
    b.input(name="c", elem_type=TensorProto.BOOL)
    return b.op("If", "c", **bodies)


def test_a_weight_without_elements_is_left_alone():
    b = Builder()
    y = b.op("MatMul", b.op("Relu", b.input("n", 0)), b.constant(np.zeros((0, 4)), "w"))
    assert not onnxfuse.optimize(b.model(b.op("Relu", y))).report.flushed


def test_text_is_no_weight():
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.GraphProto(name="g", node=[node])
    graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [2], ["a", "b"]))
    graph.input.append(helper.make_tensor_value_info("x", FLOAT, None))
    graph.output.append(helper.make_tensor_value_info("y", FLOAT, None))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert not onnxfuse.optimize(model).report.refusals


@pytest.mark.parametrize("how", ["a sum", "an output", "a body", "an input"])
def test_a_weight_that_is_something_else_too_stays(how):
    count, weight = flushed(used_otherwise(Builder(), how))
    assert count == 0
    assert np.count_nonzero(weight) == 36


def test_a_weight_that_layers_share_is_flushed_by_the_smaller_of_their_limits():
    """Column 2 is small: a channel of the first layer, a part of every channel of the second."""
    for small, is_flushed in ((1e-34, False), (1e-5, True)):
        b = Builder()
        x = b.op("Relu", b.input("n", 6))
        values = spoilt(b, 6, 6)
        values[:, 2] = small * b.values(6)
        weight = b.constant(values, "w")
        y = b.op("Relu", b.op("Gemm", x, weight))
        model = b.model(b.op("Relu", b.op("Gemm", y, weight, transB=1)))
        tiny = np.count_nonzero(np.abs(values) < 1e-38)
        assert flushed(model)[0] == (tiny if is_flushed else 0)


def test_weights_that_bodies_read_are_flushed():
    b = Builder()
    b.input("n", 6, 6)
    b.constant(spoilt(b, 6, 6), "w")
    assert flushed(b.model(inside(b, "MatMul")))[0] == 8


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalized", [False, True])
def test_weights_that_are_not_finite_stay_and_are_told(number, normalized):
    b = Builder()
    values = spoilt(b, 4, 6, 3, 3)
    values[1, 1, 1, 1] = number
    y = b.op("Conv", b.op("Relu", b.input("n", 6, "h", "w")), b.constant(values, "w"))
    result = onnxfuse.optimize(b.model(b.op("Relu", b.batch_norm(y, 4) if normalized else y)))
    assert [n.op_type for n in result.model.graph.node].count("BatchNormalization") == normalized
    assert not result.report.flushed
    weight = next(t for t in result.model.graph.initializer if t.name == "w")
    np.testing.assert_array_equal(numpy_helper.to_array(weight), values.astype(np.float32))
    assert ("Conv", "its weights are not finite") in {
        (refused.operator, refused.reason) for refused in result.report.refusals
    }


def test_both_reports_say_so():
    b = Builder()
    y, _ = layer(b, "Conv")
    result = onnxfuse.optimize(b.model(b.op("Relu", y)))
    text = io.StringIO()
    show(Console(file=text, width=100), result.report, "a.onnx", None)
    assert "44 denormal numbers in weights set to zero" in text.getvalue()
    assert "44 denormal numbers in weights set to zero" in optimize_page(result, "a")
    assert '"w": 44' in result.report.to_json()
