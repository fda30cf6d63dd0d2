"""Convolutions and what cuts their channels that stay as they are, named after what they lack."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.fold import Fold
from onnxfuse.graph import Graph, TensorType
from onnxfuse.rewrites.splits import split_convolutions
from onnxfuse.shapes import infer_types
from tests.handmade import build
from tests.lift.building import Builder
from tests.lift.comparing import Folded, optimized
from tests.rewrites.cut import (
    SIZES,
    C,
    K,
    behind,
    conv,
    part,
    silu,
    split,
    start,
)


def kept(b: Builder, *outputs: str, sizes=SIZES, **options: object) -> Folded:
    folded = optimized(b.model(*outputs), *sizes, **options)
    assert not made(folded.report)
    return folded


def made(report: onnxfuse.Report) -> list[str]:
    return [fold.target for fold in report.folds if fold.step == "splits"]


def unrun(model: onnx.ModelProto) -> None:
    """For models that no runtime takes."""
    assert not made(onnxfuse.optimize(model).report)


def unfolded(b: Builder, *outputs: str, **types: TensorType) -> list[Fold]:
    """What the rewrite does by itself, told some types."""
    model = b.model(*outputs)
    known = {**infer_types(model), **types}
    graph = Graph(model.graph, b.opset, model.ir_version, types=known)
    return split_convolutions(graph, frozenset()).folds


# The convolution ---------------------------------------------------------------------------------


def test_refuses_what_no_convolution_makes():
    b = Builder()
    kept(b, behind(b, split(b, silu(b, start(b, C)))))
    b = Builder()
    kept(b, behind(b, split(b, silu(b, b.op("MaxPool", start(b, C), kernel_shape=[1, 1])))))
    b = Builder()
    weight = b.random(K, C, 1, 1)
    kept(b, behind(b, split(b, silu(b, b.op("ConvTranspose", start(b), weight)))))


def test_refuses_a_cut_input():
    b = Builder()
    y = behind(b, split(b, b.input("n", C, "h", "w", name="cut")))
    kept(b, y, b.op("Conv", b.input("n", K, "h", "w"), b.random(C, K, 1, 1)))


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_refuses_computed_constants(what):
    b = Builder()
    x, weight, bias = start(b), b.random(C, K, 1, 1), b.random(C)
    if what == "weight":
        weight = b.op("Relu", b.input(C, K, 1, 1, name="given"))
    else:
        bias = b.op("Relu", b.input(C, name="given"))
    kept(b, behind(b, split(b, silu(b, b.op("Conv", x, weight, bias)))))


@pytest.mark.parametrize("which", ["weight", "bias", "bound"])
def test_refuses_constants_that_are_inputs_too(which):
    b = Builder()
    x, names = start(b), {"weight": b.random(C, K, 1, 1), "bias": b.random(C)}
    names["bound"] = b.random(C, 1, 1)
    y = b.op("Max", b.op("Conv", x, names["weight"], names["bias"]), names["bound"])
    model = b.model(behind(b, split(b, y)))
    (tensor,) = [t for t in model.graph.initializer if t.name == names[which]]
    info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    model.graph.input.append(info)
    assert not made(optimized(model, *SIZES).report)


@pytest.mark.parametrize("group", [2, 4])
def test_refuses_groups_of_what_no_convolution_makes(group):
    b = Builder()
    y = conv(b, start(b), group=group)
    kept(b, behind(b, split(b, silu(b, y))))
    b = Builder()
    y = conv(b, start(b, C), group=C, inputs=C)
    kept(b, behind(b, split(b, silu(b, y))))


@pytest.mark.parametrize("rank", [1, 3])
def test_refuses_other_ranks(rank):
    b = Builder()
    x = b.op("Tanh", b.input("n", K, *"hwd"[:rank]))
    parts = split(b, b.op("Tanh", b.conv(x, K, C, (1,) * rank)))
    y = b.op("Relu", b.conv(b.op("Mul", *parts), 32, 4, (1,) * rank))
    kept(b, y, sizes=[{"n": 1, "h": 3, "w": 2, "d": 2}])


def test_refuses_a_rank_that_is_not_known():
    b = Builder()
    out = behind(b, split(b, conv(b, start(b), output="made")))
    assert unfolded(b, out)
    for known in (TensorType(TensorProto.FLOAT), TensorType(TensorProto.FLOAT, ("n", C))):
        assert not unfolded(b, out, made=known)


def test_refuses_a_type_that_does_not_fit_the_weight():
    b = Builder()
    out = behind(b, b.ops("Split", conv(b, start(b), output="made"), outputs=2, axis=1))
    for shape in (("n", 2 * C, "h", "w"), ("n", "c", "h", "w")):
        assert not unfolded(b, out, made=TensorType(TensorProto.FLOAT, shape))
    b = Builder()
    weight = b.random(C, K, 1)
    y = b.op("Conv", "x", weight)
    behind(b, b.ops("Split", y, outputs=2, axis=1))
    model = build(b.nodes, [], [], b.initializers)
    types = {y: TensorType(TensorProto.FLOAT, ("n", C, "h", "w"))}
    graph = Graph(model.graph, b.opset, 8, types=types)
    assert not split_convolutions(graph, frozenset()).folds


def test_refuses_bodies_that_take_no_initializers():
    b = Builder(9)
    x, weight = start(b), b.random(C, K, 1, 1)
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        inner = Builder(b.opset, prefix=f"{branch}_")
        parts = split(inner, silu(inner, inner.op("Conv", x, weight)))
        y = inner.op("Conv", inner.op("Mul", *parts), b.random(4, 32, 1, 1))
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", 4, "h", "w"])
        bodies[branch] = helper.make_graph(inner.nodes, branch, [], [out])
    b.input(name="c", elem_type=TensorProto.BOOL)
    unrun(b.model(b.op("If", "c", **bodies), ir_version=3, list_initializers=True))


# Between -----------------------------------------------------------------------------------------


def test_refuses_what_comes_from_elsewhere():
    b = Builder()
    x = start(b)
    y = b.op("Mul", conv(b, x), b.op("Sigmoid", conv(b, x)))
    kept(b, behind(b, split(b, y)))
    b = Builder()
    gate = b.op("Sigmoid", b.input("n", C, 1, 1, name="g"))
    kept(b, behind(b, split(b, b.op("Mul", b.op("Tanh", conv(b, start(b))), gate))))


def test_refuses_constants_that_nodes_make():
    b = Builder()
    y = b.op("Max", conv(b, start(b)), b.op("Relu", b.random(C, 1, 1)))
    assert not unfolded(b, behind(b, split(b, y)))


@pytest.mark.parametrize("op", ["Softmax", "MaxPool", "Transpose"])
def test_refuses_what_is_not_elementwise(op):
    b = Builder()
    settings = {
        "Softmax": {"axis": 1},
        "MaxPool": {"kernel_shape": [2, 2]},
        "Transpose": {"perm": [0, 1, 3, 2]},
    }[op]
    kept(b, behind(b, split(b, b.op(op, b.op("Tanh", conv(b, start(b))), **settings))))


@pytest.mark.parametrize("shape", [(C,), (C, 1), (1, C, C), (1, C, C, C), (2, 1, 1, 1)])
def test_refuses_constants_that_vary_elsewhere(shape):
    """The image is as wide and as high as it has channels, or there are two of them."""
    b = Builder()
    y = b.op("Max", conv(b, start(b)), b.random(*shape))
    kept(b, behind(b, split(b, y)), sizes=[{"n": 2, "h": C, "w": C}])


def test_refuses_constants_that_add_dimensions():
    b = Builder()
    y = b.op("Max", conv(b, start(b)), b.random(1, C, C, 1, 1))
    first, _ = split(b, y)
    y = b.op("Conv", b.op("ReduceMax", first, axes=[0], keepdims=0), b.random(4, C, 1, 1))
    kept(b, b.op("Relu", y), sizes=[{"n": C, "h": 3, "w": 2}])


def test_refuses_constants_that_make_channels():
    b = Builder()
    y = b.op("Max", conv(b, start(b), 1), b.random(C, 1, 1))
    kept(b, behind(b, split(b, y)))


def test_refuses_groups_that_are_in_two_parts():
    b = Builder()
    y = b.conv(silu(b, conv(b, start(b))), C, C, (3, 3), group=2, pads=[1] * 4)
    kept(b, behind(b, split(b, b.op("Tanh", y), (16, 48)), (16, 48)))
    b = Builder()
    y = b.conv(silu(b, conv(b, start(b))), C, C, (3, 3), group=C // 2, pads=[1] * 4)
    ends, axis, step = b.constant([C]), b.constant([1]), b.constant([2])
    y = b.op("Tanh", y)
    parts = [b.op("Slice", y, b.constant([n]), ends, axis, step) for n in (0, 1)]
    kept(b, behind(b, parts))
    b = Builder()
    y = b.conv(silu(b, conv(b, start(b), 96)), 96, 96, (1, 1), group=3)
    kept(b, behind(b, [part(b, b.op("Tanh", y), 16, 48)], (32,)))


def test_refuses_groups_that_make_more_channels():
    b = Builder()
    y = b.conv(silu(b, conv(b, start(b), 32)), 32, C, (3, 3), group=32, pads=[1] * 4)
    kept(b, behind(b, split(b, b.op("Tanh", y))))


@pytest.mark.parametrize("what", ["made", "gate", "act"])
@pytest.mark.parametrize("how", ["output", "read", "kept", "captured"])
def test_refuses_tensors_that_somebody_else_needs(how, what):
    b = Builder()
    y = conv(b, start(b), output="made")
    y = b.op("Mul", y, b.op("Sigmoid", y, output="gate"), output="act")
    outputs = [behind(b, split(b, y))]
    if how == "output":
        outputs.append(what)
    if how == "read":
        outputs.append(b.op("GlobalMaxPool", what))
    if how == "captured":
        b.input(name="c", elem_type=TensorProto.BOOL)
        bodies = {}
        for branch in ("then_branch", "else_branch"):
            out = helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, None)
            node = helper.make_node("Exp", [what], [f"{branch}_out"])
            bodies[branch] = helper.make_graph([node], branch, [], [out])
        outputs.append(b.op("If", "c", **bodies))
    result = onnxfuse.optimize(b.model(*outputs), keep=[what] if how == "kept" else [])
    assert not made(result.report)


def test_refuses_a_way_that_is_long():
    b = Builder()
    y = conv(b, start(b))
    for _ in range(24):
        y = b.op("Tanh", y)
    kept(b, behind(b, split(b, y)))


# What cuts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_refuses_a_split_of_something_else(axis):
    b = Builder()
    y = silu(b, conv(b, start(b)))
    y = b.op("Mul", *split(b, y, None, 2, axis=axis))
    kept(b, b.op("Relu", b.conv(y, C, 4)), sizes=[{"n": 2, "h": 6, "w": 8}])


def test_refuses_a_slice_of_something_else():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    y = b.op("Mul", *(part(b, y, first, last, axis=2) for first, last in ((0, 3), (3, 6))))
    kept(b, b.op("Relu", b.conv(y, C, 4)), sizes=[{"n": 2, "h": 6, "w": 4}])
    b = Builder()
    y = silu(b, conv(b, start(b)))
    corner = b.op("Slice", y, b.constant([0, 1]), b.constant([32, 9]), b.constant([1, 2]))
    kept(b, b.op("Relu", b.conv(corner, 32, 4)), sizes=[{"n": 2, "h": 6, "w": 4}])


def test_refuses_sizes_that_are_computed():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    b.input(2, name="sizes", elem_type=TensorProto.INT64)
    unrun(b.model(behind(b, b.ops("Split", y, "sizes", outputs=2, axis=1))))
    b = Builder()
    y = silu(b, conv(b, start(b)))
    b.input(1, name="end", elem_type=TensorProto.INT64)
    y = b.op("Slice", y, b.constant([0]), "end", b.constant([1]))
    unrun(b.model(b.op("Relu", b.conv(y, 32, 4))))


def test_refuses_equal_parts_that_are_not_equal():
    for opset in (11, 13):
        b = Builder(opset)
        parts = b.ops("Split", silu(b, conv(b, start(b), 528)), outputs=17, axis=1)
        b.op("Conv", b.op("Concat", *parts, axis=1), b.random(4, 528, 1, 1), output="y")
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, None, None])
        unrun(build(b.nodes, b.inputs, [out], b.initializers, opset=opset))


def test_refuses_parts_that_overlap():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    kept(b, behind(b, [part(b, y, 0, 32), part(b, y, 16, 48)]))


def test_refuses_a_part_without_channels():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    parts = split(b, y, (32, 0, 32), ["a", "nothing", "c"])
    kept(b, behind(b, [parts[0], parts[2]]), b.op("ReduceSum", "nothing"))


def test_refuses_many_parts():
    b = Builder()
    parts = split(b, silu(b, conv(b, start(b), 33 * 16)), (16,) * 33)
    kept(b, behind(b, parts, (16,) * 33))


def test_refuses_what_nobody_needs():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    split(b, y)
    assert not unfolded(b, b.op("Exp", "x"))


# Whether it pays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(8, 56), (24, 40), (30, 34), (4, 4)])
def test_refuses_parts_that_fill_no_blocks(sizes):
    b = Builder()
    y = silu(b, conv(b, start(b), sum(sizes)))
    kept(b, behind(b, split(b, y, sizes), sizes))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (2, 1)])
def test_refuses_larger_kernels_with_small_parts(kernel):
    b = Builder()
    y = silu(b, conv(b, start(b), 96, kernel))
    kept(b, behind(b, split(b, y, (64, 32)), (64, 32)))


@pytest.mark.parametrize("how", ["Sigmoid", "Flatten", "Transpose", "ReduceMean"])
def test_refuses_parts_that_go_on_to_no_convolution(how):
    b = Builder()
    parts = split(b, silu(b, conv(b, start(b))))
    settings = {"Transpose": {"perm": [0, 2, 3, 1]}, "ReduceMean": {"axes": [2]}}.get(how, {})
    outputs = [b.op(how, p, **settings) for p in parts]
    if how == "Transpose":
        outputs[0] = b.conv(outputs[0], 6, 4, (1, 1))
    kept(b, *outputs, sizes=[{"n": 1, "h": 6, "w": 5}])


def test_refuses_a_convolution_that_is_far():
    b = Builder()
    first, second = split(b, silu(b, conv(b, start(b))))
    for _ in range(70):
        first = b.op("Tanh", first)
    kept(b, b.op("Relu", b.conv(first, 32, 4)), b.op("Flatten", second))


# Proofs, options, other domains ------------------------------------------------------------------


def test_refuses_what_is_no_number():
    b = Builder()
    y = b.op("Log", conv(b, start(b)))
    result = onnxfuse.optimize(b.model(behind(b, split(b, y))))
    assert not made(result.report)
    reasons = [r.reason for r in result.report.refusals if r.operator == "Split"]
    assert "it cannot be certified: it makes what is no number" in reasons


def test_refuses_windows_that_reach_too_far():
    b = Builder()
    weight = b.constant(np.ones((128, 2, 127, 127)))
    y = silu(b, b.op("Conv", start(b, 2), weight, pads=[63] * 4))
    result = onnxfuse.optimize(b.model(behind(b, split(b, y, (64, 64)), (64, 64))))
    assert not made(result.report)
    assert any("reaches too far" in refusal.reason for refusal in result.report.refusals)


@pytest.mark.parametrize("op", ["Conv", "Sigmoid", "Mul", "Split", "splits"])
def test_refuses_what_is_skipped(op):
    b = Builder()
    kept(b, behind(b, split(b, silu(b, conv(b, start(b))))), skip=[op])


def test_refuses_slices_that_are_skipped():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    kept(b, behind(b, [part(b, y, 0, 32), part(b, y, 32, 64)]), skip=["Slice"])


@pytest.mark.parametrize("op", ["Conv", "Sigmoid", "Split"])
def test_refuses_other_domains(op):
    b = Builder()
    model = b.model(behind(b, split(b, silu(b, conv(b, start(b))))))
    model.opset_import.append(helper.make_opsetid("custom", 1))
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    for node in list(model.graph.node)[: len(model.graph.node) - 5]:
        if node.op_type == op:
            node.domain = "custom"
            model.graph.value_info.extend(shapes[name] for name in node.output)
    unrun(model)
