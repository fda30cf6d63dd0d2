"""A convolution over an upsampled map is computed at the size of the map."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxfuse.reference import evaluate
from onnxfuse.rewrites.phase_kernels import extents, phases
from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized
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
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 3), (3, 5), (4, 3)])
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
