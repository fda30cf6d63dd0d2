"""A convolution over an upsampled map is computed at the size of the map."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.reference import evaluate
from onnxfuse.rewrites.phase_kernels import extents, phases
from tests.lift.building import Builder
from tests.lift.comparing import Folded, feeds_for, optimized

SIZES = ({"n": 1, "h": 5, "w": 4}, {"n": 2, "h": 1, "w": 3})
C = 96  # so many that every kernel pays
M = 16
FLOOR = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def start(b: Builder, channels: int = C, h: object = "h", w: object = "w", name: str = "x") -> str:
    return b.op("Relu", b.input("n", channels, h, w, name=name))


def up(b: Builder, x: str, *factors: float, output: str = "", **settings: object) -> str:
    """x, larger; by the form of the opset, and by default as PyTorch's exporter writes it."""
    height, width = factors * 2 if len(factors) == 1 else factors
    scales = [1.0, 1.0, float(height), float(width)]
    if b.opset < 9:
        return b.op("Upsample", x, scales=scales, output=output, **settings)
    if b.opset < 11:
        op = "Upsample" if b.opset < 10 else "Resize"
        return b.op(op, x, b.constant(scales), output=output, **settings)
    roi = b.constant(np.zeros(0), elem_type=TensorProto.FLOAT) if b.opset < 13 else ""
    given = b.constant(scales, elem_type=TensorProto.FLOAT)
    settings = {"mode": "nearest", **FLOOR, **settings}
    return b.op("Resize", x, roi, given, output=output, **settings)


def behind(b: Builder, y: str) -> str:
    return b.op("Relu", y)


def pads_of(kernel: tuple[int, ...]) -> list[int]:
    return [*((k - 1) // 2 for k in kernel), *(k // 2 for k in kernel)]


def conv(b: Builder, x: str, channels: int = C, kernel: tuple[int, ...] = (3, 3), **how) -> str:
    settings = {"pads": pads_of(kernel), **how}
    return b.conv(x, channels, settings.pop("outputs", M), kernel, **settings)


def rewritten(folded: Folded, *gone: str) -> onnxfuse.report.report.Fold:
    """The rewrite, the only one."""
    (fold,) = [f for f in folded.report.folds if "DepthToSpace" in f.nodes]
    assert fold.certificate.error < 1e-12
    assert folded.ops["DepthToSpace"] == 1
    assert not set(gone) & set(folded.ops)
    return fold


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_phases_are_the_convolution_by_its_definition(kernel):
    rng = np.random.default_rng(kernel)
    x, weight = rng.standard_normal((2, 3, 4, 2)), rng.standard_normal((5, 3, kernel, 3))
    for begin in range(kernel):
        large = np.repeat(np.repeat(x, 2, 2), 2, 3)
        around = ((0, 0), (0, 0), (begin, kernel - 1 - begin), (2, 0))
        padded = np.pad(large, around)
        expected = np.zeros((2, 5, 8, 4))
        for i, j in np.ndindex(8, 4):
            window = padded[:, :, i : i + kernel, j : j + 3]
            expected[:, :, i, j] = np.einsum("nchw,ochw->no", window, weight)
        for number, phase in enumerate(phases(weight, (begin, 2))):
            a, b = divmod(number, 2)
            node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[*phase.begins, *phase.ends])
            y = evaluate([node], {"x": x, "w": phase.weight}, 13)["y"]
            np.testing.assert_allclose(y, expected[:, :, a::2, b::2], rtol=0, atol=1e-12)
            taps = [
                on[bit] for on, bit in zip(extents((kernel, 3), (begin, 2)), (a, b), strict=True)
            ]
            assert list(phase.weight.shape[2:]) == taps
            assert min(*phase.begins, *phase.ends) >= 0


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 2), (3, 5), (4, 3)])
def test_every_kernel(kernel, bias):
    b = Builder()
    y = conv(b, up(b, start(b), 2), kernel=kernel, bias=bias)
    folded = optimized(b.model(behind(b, y)), *SIZES)
    fold = rewritten(folded, "Resize", "Add")
    assert fold.replaced[0][1] == "Resize"
    assert fold.nodes == ("Conv",) * 4 + ("Concat", "DepthToSpace")


def test_a_3x3_kernel_becomes_four_of_2x2():
    b = Builder()
    folded = optimized(b.model(behind(b, conv(b, up(b, start(b), 2)))), *SIZES)
    fold = rewritten(folded)
    assert fold.formula == "y = W * U, U twice as large as x: 3x3 as 2x2, 2x2, 2x2, 2x2"
    weights = [t.dims for t in folded.model.graph.initializer if len(t.dims) == 4]
    assert weights == [[M, C, 2, 2]] * 4
    assert folded.ops == {"Relu": 2, "Conv": 4, "Concat": 1, "DepthToSpace": 1}


@pytest.mark.parametrize("pads", [[0, 0, 2, 2], [2, 1, 0, 1], [1, 0, 1, 2]])
def test_every_padding_that_keeps_the_size(pads):
    b = Builder()
    rewritten(optimized(b.model(behind(b, conv(b, up(b, start(b), 2), pads=pads))), *SIZES))


@pytest.mark.parametrize("kernel", [(3, 3), (4, 2)])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_padding_by_a_mode(mode, kernel):
    b = Builder()
    y = b.conv(up(b, start(b), 2), C, M, kernel, auto_pad=mode)
    rewritten(optimized(b.model(behind(b, y)), *SIZES))


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 18, 19, 22])
@pytest.mark.parametrize("factors", [(2,), (4,), (8,), (2, 4), (6, 2)])
def test_every_factor_in_every_opset(opset, factors):
    b = Builder(opset)
    y = conv(b, up(b, start(b), *factors))
    onnx_runs = opset not in (7, 10)  # its evaluator takes no scales then
    folded = optimized(b.model(behind(b, y)), *SIZES, truth_runs=onnx_runs)
    fold = rewritten(folded)
    op = "Upsample" if opset < 10 else "Resize"
    assert folded.ops[op] == (factors != (2,))
    if factors != (2,):
        assert fold.nodes[0] == op


WAYS = [
    {},
    {"coordinate_transformation_mode": "pytorch_half_pixel"},
    {"nearest_mode": "round_prefer_ceil"},
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "round_prefer_floor"},
    {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"},
]


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_name_the_nearest_that_are_the_same_for_a_factor_of_two(way):
    b = Builder(11)
    settings = {
        "coordinate_transformation_mode": "half_pixel",
        "nearest_mode": "round_prefer_floor",
    }
    y = conv(b, up(b, start(b), 2, **{**settings, **way}))
    onnx_runs = not way.get("coordinate_transformation_mode", "").startswith("tf_")
    rewritten(optimized(b.model(behind(b, y)), *SIZES, truth_runs=onnx_runs), "Resize")


@pytest.mark.parametrize("factor", [2, 4, 6, 10])
def test_the_default_of_newer_opsets_and_of_both_ends_alike(factor):
    for settings in ({}, {"coordinate_transformation_mode": "half_pixel_symmetric"}):
        b = Builder(19)
        scales = b.constant([1.0, 1.0, factor, factor])
        y = conv(b, b.op("Resize", start(b), "", scales, **settings))
        rewritten(optimized(b.model(behind(b, y)), *SIZES))


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("factor", [2, 4])
def test_constant_sizes_of_a_map_of_known_size(opset, factor):
    b = Builder(opset)
    x = b.op("Relu", b.input(2, C, 5, 8))
    empty = b.constant(np.zeros(0)) if opset == 11 else ""
    sizes = b.constant([2, C, 5 * factor, 8 * factor])
    y = conv(b, b.op("Resize", x, empty, empty, sizes, mode="nearest", **FLOOR))
    rewritten(optimized(b.model(behind(b, y))))


def test_float16():
    b = Builder(elem_type=TensorProto.FLOAT16)
    folded = optimized(b.model(behind(b, conv(b, up(b, start(b), 4)))), *SIZES)
    rewritten(folded)


def mixed(b: Builder, order: str, bias: bool = True, axis: int = 1, **how: object) -> str:
    """A convolution over a Concat; by letter, what is upsampled by 8, 4, 2 and 1."""
    factors = {"a": 8, "b": 4, "c": 2, "d": 1, "e": 1}
    parts, total = [], 0
    for number, letter in enumerate(order):
        f, channels = factors[letter], 40 + number
        x = start(b, channels, f"{8 // f}*k", f"{8 // f}*m", name=f"x{number}")
        parts.append(x if f == 1 else up(b, x, f))
        total += channels
    return conv(b, b.op("Concat", *parts, axis=axis), total, bias=bias, **how)


def sizes_of_mixed() -> list[dict[str, int]]:
    made = []
    for n, k, m in ((1, 1, 2), (2, 2, 1)):
        symbols = {f"{f}*{s}": f * v for f in (1, 2, 4, 8) for s, v in (("k", k), ("m", m))}
        made.append({"n": n, **symbols})
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["abcd", "dcba", "cdba", "dceb", "ab", "cc", "bcdd"])
def test_parts_of_several_sizes(order, bias):
    b = Builder()
    folded = optimized(b.model(behind(b, mixed(b, order, bias))), *sizes_of_mixed())
    rewritten(folded)
    few, many = sum(c in "abc" for c in order), sum(c in "de" for c in order)
    assert folded.ops["Resize"] == sum(c in "ab" for c in order)
    assert folded.ops["Concat"] == 1 + (few > 1) + (many > 1)
    assert folded.ops["Add"] == (many > 0)
    assert folded.ops["Conv"] == 4 + (many > 0)


def test_a_part_that_is_given_twice():
    b = Builder()
    u = up(b, start(b), 4)
    y = conv(b, b.op("Concat", u, u, axis=-3), 2 * C)
    folded = optimized(b.model(behind(b, y)), *SIZES)
    rewritten(folded)
    assert folded.ops["Resize"] == 1


def test_an_upsampled_part_that_others_read_stays():
    b = Builder()
    x, z = start(b), start(b, name="z")
    shared = up(b, z, 2)
    y = conv(b, b.op("Concat", up(b, x, 2), shared, axis=1), 2 * C)
    folded = optimized(b.model(behind(b, y), b.op("Sigmoid", shared)), *SIZES)
    rewritten(folded)
    assert folded.ops["Resize"] == 1
    assert folded.ops["Add"] == 1


def test_what_is_left_of_a_factor_is_split_again_where_one_convolution_is_left():
    b = Builder()
    y = conv(b, up(b, start(b), 4), kernel=(5, 5))
    folded = optimized(b.model(behind(b, y)), *SIZES)
    assert folded.ops["DepthToSpace"] == 2
    assert "Resize" not in folded.ops


def test_a_normalization_and_a_branch_join_the_convolution_before():
    b = Builder()
    u = up(b, start(b), 2)
    y = b.op("Add", conv(b, u), conv(b, u, kernel=(1, 1)))
    folded = optimized(b.model(behind(b, b.batch_norm(y, M))), *SIZES)
    assert folded.ops == {"Relu": 2, "Conv": 4, "Concat": 1, "DepthToSpace": 1}


def test_inside_a_body():
    b = Builder()
    x = start(b)
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        inner = Builder(b.opset, prefix=f"{branch}_")
        y = behind(inner, conv(inner, up(inner, x, 2)))
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", M, None, None])
        bodies[branch] = helper.make_graph(inner.nodes, branch, [], [out], inner.initializers)
    b.input(name="c", elem_type=TensorProto.BOOL)
    model = b.model(b.op("If", "c", **bodies))
    feeds = [
        {**feeds_for(model, size), "c": np.asarray(flag)}
        for size in SIZES
        for flag in (True, False)
    ]
    folded = optimized(model, feeds=feeds)
    assert folded.ops["DepthToSpace"] == 2


def test_a_large_map_of_known_size():
    b = Builder()
    y = conv(b, up(b, start(b, C, 16, 20), 2))
    rewritten(optimized(b.model(behind(b, y)), {"n": 1}))


# What must stay ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("shape", "pads"), [((3,), [1, 1]), ((3, 3, 3), [1] * 6)])
def test_refuses_other_ranks(shape, pads):
    b = Builder()
    rank = len(shape)
    x = b.op("Relu", b.input("n", C, *"hwd"[:rank]))
    scales = b.constant([1.0, 1.0, *[2.0] * rank])
    u = b.op("Resize", x, "", scales, mode="nearest", **FLOOR)
    y = b.conv(u, C, M, shape, pads=pads)
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
    kept(b, behind(b, mixed(b, "cd")), sizes=sizes_of_mixed(), skip=[op])


def test_refuses_an_upsample_that_is_skipped():
    b = Builder(9)
    y = behind(b, conv(b, up(b, start(b), 2)))
    kept(b, y, skip=["Upsample"])
    rewritten(optimized(b.model(y), *SIZES, skip=["Resize"]))


@pytest.mark.parametrize("op", ["Conv", "Concat", "Resize"])
def test_refuses_other_domains(op):
    b = Builder()
    model = b.model(behind(b, mixed(b, "cd")))
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
