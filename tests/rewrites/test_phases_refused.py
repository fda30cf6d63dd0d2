"""Convolutions over upsampled maps that stay as they are, named after what they lack."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.graph import Graph, TensorType
from onnxfuse.rewrites.phases import split_phases
from onnxfuse.rewrites.upsampling import upsampling
from tests.lift.building import Builder
from tests.lift.comparing import Folded, left_alone, optimized
from tests.rewrites.upsampled import (
    FLOOR,
    SIZES,
    C,
    M,
    behind,
    conv,
    mixed,
    rewritten,
    sizes_of_mixed,
    start,
    up,
)


def kept(b: Builder, *outputs: str, sizes=SIZES, **options: object) -> Folded:
    folded = optimized(b.model(*outputs), *sizes, **options)
    assert "DepthToSpace" not in folded.ops
    return folded


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        {"coordinate_transformation_mode": "align_corners"},
        {"nearest_mode": "ceil"},
        {"nearest_mode": "round_prefer_ceil"},
        {"coordinate_transformation_mode": "half_pixel"},
    ],
)
def test_refuses_other_ways_to_resize(settings):
    b = Builder()
    kept(b, behind(b, conv(b, up(b, start(b), 2, **settings))))


def test_refuses_a_rounding_that_differs_for_a_larger_factor():
    b = Builder()
    kept(b, behind(b, conv(b, up(b, start(b), 4, nearest_mode="round_prefer_floor"))))


def test_refuses_a_mode_of_an_older_opset():
    for opset in (7, 9, 10):
        b = Builder(opset)
        kept(b, behind(b, conv(b, up(b, start(b), 2, mode="linear"))), truth_runs=False)


@pytest.mark.parametrize("factors", [(3,), (2, 3), (3, 2), (1, 2), (1.5,), (2.5,), (5, 4)])
def test_refuses_odd_factors(factors):
    b = Builder()
    kept(b, behind(b, conv(b, up(b, start(b), *factors))), sizes=[{"n": 1, "h": 4, "w": 6}])


@pytest.mark.parametrize("opset", [18, 19])
def test_refuses_settings_of_newer_opsets(opset):
    b = Builder(opset)
    scales = b.constant([2.0, 2.0], elem_type=TensorProto.FLOAT)
    u = b.op("Resize", start(b), "", scales, mode="nearest", axes=[2, 3], **FLOOR)
    kept(b, behind(b, conv(b, u)))
    b = Builder(opset)
    x = b.op("Relu", b.input(1, C, 4, 4))
    ways = {"keep_aspect_ratio_policy": "not_larger", **FLOOR}
    u = b.op("Resize", x, "", "", b.constant([1, C, 8, 8]), mode="nearest", **ways)
    kept(b, behind(b, conv(b, u)), sizes=[{}])


def test_refuses_axes_in_another_order():
    b = Builder(18)
    scales = b.constant([1.0, 1.0, 2.0, 4.0])
    u = b.op("Resize", start(b), "", scales, mode="nearest", axes=[0, 1, 3, 2], **FLOOR)
    kept(b, behind(b, conv(b, u)))


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((M, C, 3), {"pads": [1] * 4}),
        ((M, C, 3), {"auto_pad": "SAME_UPPER"}),
        ((M, C, 3, 3), {"pads": [1] * 4, "kernel_shape": [5, 3]}),
        ((M, C, 3, 3), {"pads": [1] * 3}),
        ((M, C, 3, 3), {"pads": [1] * 6}),
        ((M, C, 3, 3), {"pads": [3, 1, -1, 1]}),
    ],
)
def test_leaves_convolutions_that_are_none_alone(shape, settings):
    b = Builder()
    b.op("Conv", up(b, start(b), 2), b.random(*shape), output="y", **settings)
    unchecked(b)


@pytest.mark.parametrize(
    "scales", [[1.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0, 2.0], [2.0], [np.inf] * 4]
)
def test_leaves_scales_that_do_not_fit_alone(scales):
    b = Builder()
    u = b.op("Resize", start(b), "", b.constant(scales), mode="nearest", **FLOOR)
    b.op("Conv", u, b.random(M, C, 3, 3), pads=[1] * 4, output="y")
    unchecked(b)


def test_leaves_an_unknown_way_to_round_alone():
    b = Builder()
    u = up(b, start(b), 2, nearest_mode="nearest")
    b.op("Conv", u, b.random(M, C, 3, 3), pads=[1] * 4, output="y")
    unchecked(b)


def unchecked(b: Builder) -> None:
    """For models that no runtime takes: every node stays as it is."""
    graph = helper.make_graph(
        b.nodes,
        "graph",
        b.inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", M, None, None])],
        b.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)], ir_version=8)
    left_alone(model)


def test_refuses_antialiasing():
    b = Builder(18)
    model = b.model(behind(b, conv(b, up(b, start(b), 2, antialias=1))))
    assert not onnxfuse.optimize(model).report.folds


@pytest.mark.parametrize("scales", [(1, 2, 2, 2), (2, 1, 2, 2)])
def test_refuses_scales_of_batch_or_channels(scales):
    b = Builder()
    given = b.constant(np.array(scales, float))
    u = b.op("Resize", start(b, C // scales[1]), "", given, mode="nearest", **FLOOR)
    kept(b, behind(b, conv(b, u)))


def test_refuses_computed_scales_and_sizes():
    b = Builder()
    scales = b.input(4, name="scales")
    u = b.op("Resize", start(b), "", scales, mode="nearest", **FLOOR)
    model = b.model(behind(b, conv(b, u)))
    feeds = {"x": np.ones((1, C, 3, 2), np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    assert "DepthToSpace" not in optimized(model, feeds=[feeds]).ops
    b = Builder()
    sizes = b.constant([1, C, 8, 8])
    u = b.op("Resize", start(b), "", "", sizes, mode="nearest", **FLOOR)
    kept(b, behind(b, conv(b, u)), sizes=[{"n": 1, "h": 4, "w": 4}])
    b = Builder()
    u = b.op("Resize", start(b, C, 4, 5), "", "", sizes, mode="nearest", **FLOOR)
    b.constant([1, C, 8, 8], name=sizes)
    kept(b, behind(b, conv(b, u)), sizes=[{"n": 1}])


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": [2, 2]},
        {"strides": [1, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"group": 2},
        {"pads": [0, 0, 0, 0]},
        {"pads": [2, 2, 2, 2]},
        {"pads": [1, 1, 1, 0]},
    ],
)
def test_refuses_other_convolutions(settings):
    b = Builder()
    kept(b, behind(b, conv(b, up(b, start(b), 2), **settings)), sizes=SIZES[:1])


def test_refuses_no_padding():
    b = Builder()
    kept(b, behind(b, b.conv(up(b, start(b), 2), C, M)), sizes=SIZES[:1])
    b = Builder()
    kept(b, behind(b, b.conv(up(b, start(b), 2), C, M, auto_pad="VALID")), sizes=SIZES[:1])


def test_refuses_pointwise_kernels():
    b = Builder()
    kept(b, behind(b, conv(b, up(b, start(b), 2), kernel=(1, 1))))


@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((5,), {"pads": [2, 2]}),
        ((5,), {"auto_pad": "SAME_UPPER"}),
        ((3, 3, 3), {"pads": [1] * 6}),
        ((3, 3, 3), {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_refuses_other_ranks(shape, padding):
    b = Builder()
    rank = len(shape)
    x = b.op("Relu", b.input("n", C, *"hwd"[:rank]))
    scales = b.constant([1.0, 1.0, *[2.0] * rank])
    u = b.op("Resize", x, "", scales, mode="nearest", **FLOOR)
    y = b.conv(u, C, M, shape, **padding)
    kept(b, behind(b, y), sizes=[{"n": 1, "h": 3, "w": 2, "d": 2}])


def test_refuses_computed_weights_and_biases():
    b = Builder()
    weight = b.op("Tanh", b.input(M, C, 3, 3, name="weight"))
    kept(b, behind(b, b.op("Conv", up(b, start(b), 2), weight, pads=[1] * 4)))
    b = Builder()
    bias = b.op("Tanh", b.input(M, name="bias"))
    y = b.op("Conv", up(b, start(b), 2), b.random(M, C, 3, 3), bias, pads=[1] * 4)
    kept(b, behind(b, y))


def test_refuses_float64():
    b = Builder(elem_type=TensorProto.DOUBLE)
    model = b.model(behind(b, conv(b, up(b, start(b), 2))))
    assert not onnxfuse.optimize(model).report.folds


@pytest.mark.parametrize("what", ["u", "joined"])
@pytest.mark.parametrize("how", ["output", "read", "kept", "captured"])
def test_refuses_maps_that_somebody_else_needs(how, what):
    b = Builder()
    x, z = start(b), start(b, h="2*h", w="2*w", name="z")
    u = up(b, x, 2, output="u")
    y = behind(b, conv(b, b.op("Concat", u, z, axis=1, output="joined"), 2 * C))
    outputs = {"output": [what]}.get(how, [])
    if how == "read":
        outputs = [b.op("Sigmoid", what)]
    if how == "captured":
        bodies = {}
        for name in ("then_branch", "else_branch"):
            out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
            node = helper.make_node("Sigmoid", [what], [f"{name}_out"])
            bodies[name] = helper.make_graph([node], name, [], [out])
        flag = b.input(name="flag", elem_type=TensorProto.BOOL)
        outputs = [b.op("If", flag, **bodies)]
    model = b.model(y, *outputs)
    result = onnxfuse.optimize(model, keep=[what] if how == "kept" else [])
    assert "DepthToSpace" not in {n.op_type for n in result.model.graph.node}


@pytest.mark.parametrize("op", ["Conv", "Concat", "Resize"])
def test_refuses_operators_that_are_skipped(op):
    b = Builder()
    kept(b, behind(b, mixed(b, "bcd")), sizes=sizes_of_mixed(), skip=[op])


def test_refuses_an_upsample_that_is_skipped():
    b = Builder(9)
    y = behind(b, conv(b, up(b, start(b), 2)))
    kept(b, y, skip=["Upsample"])
    rewritten(optimized(b.model(y), *SIZES, skip=["Resize"]))


@pytest.mark.parametrize("op", ["Conv", "Concat", "Resize"])
def test_refuses_other_domains(op):
    b = Builder()
    model = b.model(behind(b, mixed(b, "bcd")))
    model.opset_import.append(helper.make_opsetid("custom", 1))
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    for node in model.graph.node:
        if node.op_type == op:
            node.domain = "custom"
            model.graph.value_info.append(shapes[node.output[0]])
    result = onnxfuse.optimize(model)
    assert "DepthToSpace" not in {n.op_type for n in result.model.graph.node}


def test_refuses_a_concat_of_rows():
    b = Builder()
    x, z = start(b), start(b, h="v", w="2*w", name="z")
    y = conv(b, b.op("Concat", up(b, x, 2), z, axis=2))
    kept(b, behind(b, y), sizes=[{"n": 1, "h": 3, "w": 2, "v": 5, "2*w": 4}])


def test_refuses_parts_of_unknown_channels():
    b = Builder()
    x, z = start(b, "c"), start(b, "d", "2*h", "2*w", name="z")
    y = conv(b, b.op("Concat", up(b, x, 2), z, axis=1))
    kept(b, behind(b, y), sizes=[{"n": 1, "c": 90, "d": 6, "h": 3, "w": 2, "2*h": 6, "2*w": 4}])


@pytest.mark.parametrize("channels", [8, 28])
def test_refuses_what_does_not_pay(channels):
    b = Builder()
    kept(b, behind(b, conv(b, up(b, start(b, channels), 2), channels)))


def test_refuses_small_maps_of_known_size():
    b = Builder()
    y = conv(b, up(b, start(b, C, 1, 2), 2), outputs=4)
    kept(b, behind(b, y), sizes=[{"n": 1}])


def test_refuses_sums_that_overflow():
    b = Builder(elem_type=TensorProto.FLOAT16)
    weight = b.constant(np.full((M, C, 3, 3), 40000.0))
    y = b.op("Conv", up(b, start(b), 2), weight, pads=[1] * 4)
    result = onnxfuse.optimize(b.model(behind(b, y)))
    assert not result.report.folds
    assert any("overflow" in refusal.reason for refusal in result.report.refusals)


def test_refuses_windows_that_reach_too_far():
    b = Builder()
    weight = b.constant(np.ones((1, C, 127, 127)))
    y = b.op("Conv", up(b, start(b), 2), weight, pads=[63] * 4)
    result = onnxfuse.optimize(b.model(behind(b, y)))
    assert not result.report.folds
    assert any("certified" in refusal.reason for refusal in result.report.refusals)


def test_refuses_bodies_that_take_no_initializers():
    b = Builder(9)
    x = start(b)
    weight = b.random(M, C, 3, 3)
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        inner = Builder(b.opset, prefix=f"{branch}_")
        u = inner.op("Upsample", x, b.constant([1.0, 1.0, 2.0, 2.0]))
        y = behind(inner, inner.op("Conv", u, weight, pads=[1] * 4))
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", M, None, None])
        bodies[branch] = helper.make_graph(inner.nodes, branch, [], [out])
    b.input(name="c", elem_type=TensorProto.BOOL)
    model = b.model(b.op("If", "c", **bodies), ir_version=3, list_initializers=True)
    assert not onnxfuse.optimize(model).report.folds


def test_refuses_sizes_that_contradict_each_other():
    """Such a model runs nowhere; it is no reason to stop."""
    b = Builder()
    x = b.op("Relu", b.input("n", C, None, None))
    y = conv(b, b.op("Concat", up(b, x, 2), up(b, x, 4), axis=1), 2 * C)
    result = onnxfuse.optimize(b.model(behind(b, y)))
    assert not result.report.folds


@pytest.mark.parametrize("opset", [7, 9, 10, 13])
@pytest.mark.parametrize("factor", [np.nan, np.inf, -2.0])
def test_refuses_factors_that_are_none(opset, factor):
    b = Builder(opset)
    up(b, b.input("n", C, "h", "w"), factor)
    graph = helper.make_graph(b.nodes, "g", b.inputs, [], b.initializers)
    assert upsampling(Graph(graph, opset, 8), 0) is None


@pytest.mark.parametrize("name", ["coordinate_transformation_mode", "nearest_mode"])
def test_refuses_ways_with_names_that_are_no_text(name):
    b = Builder()
    up(b, b.input("n", C, "h", "w"), 2, **{name: b"\xff"})
    graph = helper.make_graph(b.nodes, "g", b.inputs, [], b.initializers)
    assert upsampling(Graph(graph, 17, 8), 0) is None


def test_refuses_a_concat_without_an_axis():
    b = Builder()
    y = conv(b, b.op("Concat", up(b, start(b), 2)))
    graph = helper.make_graph(b.nodes, "g", b.inputs, [], b.initializers)
    types = dict.fromkeys([n.output[0] for n in b.nodes], TensorType(1, (1, C, 8, 8)))
    types[y] = TensorType(1, (1, M, 8, 8))
    assert not split_phases(Graph(graph, 17, 8, types=types), frozenset()).folds
