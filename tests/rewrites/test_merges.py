"""Convolutions over one tensor become one, whose channels are cut into parts."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from onnxfuse.pipeline import optimize_with
from tests.lift.building import Builder
from tests.lift.comparing import Folded, feeds_for, optimized
from tests.rewrites.cut import SIZES, K, silu, start
from tests.rewrites.ways import clip

COUNTS = (4, 2, 10)
LARGER = ({"n": 1, "h": 9, "w": 8}, {"n": 2, "h": 7, "w": 11})


def heads(b: Builder, x: str, counts=COUNTS, kernel=(1, 1), **how) -> list[str]:
    return [b.conv(x, K, count, kernel, **how) for count in counts]


def ends(b: Builder, *tensors: str) -> list[str]:
    """What nothing goes along with."""
    return [b.op("Flatten", y) for y in tensors]


def merged(folded: Folded, times: int = 1) -> list:
    folds = [fold for fold in folded.report.folds if fold.step == "merges"]
    assert len(folds) == times
    assert max(fold.certificate.error for fold in folds) < 1e-12
    return folds


def test_the_weight_has_the_rows_of_each():
    b = Builder()
    x = start(b)
    weights = [(b.random(count, K, 1, 1), b.random(count)) for count in COUNTS]
    names = ("cls", "box", "points")
    ys = [b.op("Conv", x, *given, output=n) for given, n in zip(weights, names, strict=True)]
    folded = optimized(b.model(*ends(b, *ys)), *SIZES)
    (fold,) = merged(folded)
    assert fold.formula == "y = W * x + b, 4 + 2 + 10 channels, cut into parts"
    assert fold.nodes == ("Conv", "Split")
    assert fold.after[1].outputs == names
    assert fold.after[0].shape == ("n", 16, "h", "w")
    assert [op for _, op in fold.replaced] == ["Conv"] * 3
    old = {t.name: numpy_helper.to_array(t) for t in b.initializers}
    new = {t.name: numpy_helper.to_array(t) for t in folded.model.graph.initializer}
    for given, place in zip(fold.after[0].constants, (0, 1), strict=True):
        np.testing.assert_array_equal(new[given], np.concatenate([old[w[place]] for w in weights]))
    assert not {name for pair in weights for name in pair} & set(new)
    assert folded.ops["Conv"] == folded.ops["Split"] == 1


@pytest.mark.parametrize("opset", [7, 11, 13, 18, 22])
def test_every_opset(opset):
    b = Builder(opset)
    merged(optimized(b.model(*ends(b, *heads(b, start(b)))), *SIZES))


@pytest.mark.parametrize("biases", [(True, False, True), (False, True, True), (False,) * 3])
def test_biases_that_are_left_out(biases):
    b = Builder()
    x = start(b)
    ys = [b.conv(x, K, n, (1, 1), bias=bias) for n, bias in zip(COUNTS, biases, strict=True)]
    (fold,) = merged(optimized(b.model(*ends(b, *ys)), *SIZES))
    assert len(fold.after[0].constants) == 1 + any(biases)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pads": [1, 0, 2, 1]},
        {"strides": [2, 1], "pads": [1, 1, 1, 0]},
        {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
    ],
)
def test_larger_kernels(settings):
    b = Builder()
    ys = heads(b, start(b), kernel=(3, 2), **settings)
    merged(optimized(b.model(*ends(b, *ys)), *LARGER))


def test_windows_that_are_written_in_other_ways():
    b = Builder()
    x = start(b)
    written = {"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "kernel_shape": [2, 2]}
    ys = [b.conv(x, K, 4, (2, 2), **settings) for settings in ({}, written, {"auto_pad": "NOTSET"})]
    merged(optimized(b.model(*ends(b, *ys)), *SIZES))


def test_those_that_fill_blocks_stay_by_themselves():
    b = Builder()
    x = start(b)
    ys = [b.conv(x, K, count, (1, 1)) for count in (16, 4, 80, 1, 48)]
    folded = optimized(b.model(*ends(b, *ys)), *SIZES)
    assert merged(folded)[0].formula.startswith("y = W * x + b, 4 + 1 channels")
    assert folded.ops["Conv"] == 4


@pytest.mark.parametrize(
    ("counts", "together"),
    [((2, 8, 4), "2 + 8 + 4"), ((200, 4, 2), "4 + 2"), ((8, 4, 4), "8 + 4 + 4")],
)
def test_those_that_fill_small_blocks_join_where_it_pays(counts, together):
    b = Builder()
    folded = optimized(b.model(*ends(b, *heads(b, start(b), counts))), *SIZES)
    assert merged(folded)[0].formula == f"y = W * x + b, {together} channels, cut into parts"


def test_two_windows_two_families():
    b = Builder()
    x = start(b)
    ys = [b.conv(x, K, 4, kernel) for kernel in ((1, 1), (3, 3), (1, 1), (3, 3))]
    merged(optimized(b.model(*ends(b, *ys)), *LARGER), 2)


# What lies behind --------------------------------------------------------------------------------


BEHIND = {
    "Relu": lambda b, x, n: b.op("Relu", x),
    "Clip": lambda b, x, n: clip(b, x, -0.5, 3.0),
    "Clip from above": lambda b, x, n: b.op("Clip", x, "", b.constant(2.0)),
    "LeakyRelu": lambda b, x, n: b.op("LeakyRelu", x, alpha=0.2),
    "SiLU": lambda b, x, n: silu(b, x),
    "two in a row": lambda b, x, n: b.op("Tanh", b.op("Relu", x)),
    "PRelu by channel": lambda b, x, n: b.op("PRelu", x, b.random(n, 1, 1)),
    "PRelu": lambda b, x, n: b.op("PRelu", x, b.constant([0.3])),
    "Max by channel": lambda b, x, n: b.op("Max", b.random(1, n, 1, 1), x),
    "Min, other numbers": lambda b, x, n: b.op("Min", x, b.constant(n / 10)),
    "Max, more dimensions": lambda b, x, n: b.op("Max", x, b.constant([[[[0.1]]]])),
    "depthwise": lambda b, x, n: b.conv(b.op("Relu", x), n, n, group=n, pads=[1] * 4),
    "depthwise, no bias": lambda b, x, n: b.conv(
        b.op("Relu", x), n, n, (2, 3), group=n, bias=False, strides=[2, 1], dilations=[1, 2]
    ),
}


@pytest.mark.parametrize("way", BEHIND)
def test_what_works_on_channels_goes_along(way):
    b = Builder()
    x = start(b)
    ys = [BEHIND[way](b, b.conv(x, K, count, (1, 1)), count) for count in (4, 2, 9, 1)]
    folded = optimized(b.model(*(b.op("Flatten", y) for y in ys)), *LARGER)
    (fold,) = merged(folded)
    assert fold.formula == "y = act(W * x + b), 4 + 2 + 9 + 1 channels, cut into parts"
    assert folded.ops["Split"] == 1
    assert all(fold.nodes.count(op) == folded.ops[op] for op in fold.nodes[:-1] if op != "Tanh")
    assert folded.model.graph.node[-5].op_type == "Split"


def test_one_number_of_all_is_taken_once():
    b = Builder()
    x, bound = start(b), b.constant(0.3)
    ys = [b.op("Max", y, bound) for y in heads(b, x)]
    folded = optimized(b.model(*ends(b, *ys)), *SIZES)
    merged(folded)
    assert bound in {t.name for t in folded.model.graph.initializer}


def test_only_what_all_of_them_have_goes_along():
    b = Builder()
    ys = heads(b, start(b))
    ys = [b.op("Relu", y) for y in ys]
    ys = [b.op("Sigmoid", ys[0]), *ys[1:]]
    (fold,) = merged(optimized(b.model(*ends(b, *ys)), *SIZES))
    assert fold.nodes == ("Conv", "Relu", "Split")


OTHERS = {
    "attributes": lambda b, x, n: b.op("LeakyRelu", x, alpha=n / 50),
    "bounds": lambda b, x, n: clip(b, x, -0.5, float(n)),
    "bounds left out": lambda b, x, n: b.op(
        "Clip", x, *(["", b.constant(2.0)] if n == 2 else [b.constant(2.0)])
    ),
    "operators": lambda b, x, n: b.op("Relu" if n == 2 else "Exp", x),
    "places": lambda b, x, n: b.op("Pow", *((x, b.constant(2.0))[:: 1 if n == 2 else -1])),
    "windows": lambda b, x, n: b.conv(x, n, n, group=n, pads=[1 if n == 2 else 2] * 4),
    "kernels": lambda b, x, n: b.conv(x, n, n, (1, 2 if n == 2 else 3), group=n, pads=[0, 2] * 2),
    "all channels": lambda b, x, n: b.conv(x, n, n, pads=[1] * 4),
    "pairs of channels": lambda b, x, n: b.conv(x, n, n // 2, group=n // 2),
    "more channels": lambda b, x, n: b.conv(x, n, 2 * n, group=n),
    "a weight that is computed": lambda b, x, n: b.op(
        "Conv", x, b.op("Mul", b.random(n, 1, 3, 3), b.op("ReduceMean", "x")), group=n
    ),
    "wiring": lambda b, x, n: (lambda r: b.op("Mul", r if n == 2 else x, b.op("Tanh", r)))(
        b.op("Relu", x)
    ),
    "another's tensor": lambda b, x, n: b.op("Mul", x, b.op("ReduceMean", "x", axes=[1])),
    "constants of places": lambda b, x, n: b.op("Max", x, b.random(1, 6)),
    "constants of more dimensions": lambda b, x, n: b.op("Max", x, b.constant([[[[[0.1]]]]])),
}


@pytest.mark.parametrize("how", OTHERS)
def test_what_differs_stays_behind(how):
    b = Builder()
    x = start(b)
    before = [b.op("Tanh", y) for y in heads(b, x)]
    ys = [OTHERS[how](b, y, count) for y, count in zip(before, COUNTS, strict=True)]
    outputs = [b.op("ReduceSum", y, keepdims=0) for y in ys]
    folded = optimized(b.model(*outputs), {"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 4, "w": 6})
    assert merged(folded)[0].nodes == ("Conv", "Tanh", "Split")


@pytest.mark.parametrize("op", ["Max", "Mul"])
def test_what_widens_one_channel_stays_behind(op):
    b = Builder()
    x = start(b)
    before = [b.op("Tanh", b.conv(x, K, count, (1, 1))) for count in (1, 1, 5)]
    ys = [b.op(op, y, b.random(5, 1, 1)) for y in before]
    outputs = [b.op("ReduceMax", y, axes=[1]) for y in ys]
    assert merged(optimized(b.model(*outputs), *SIZES))[0].nodes == ("Conv", "Tanh", "Split")


@pytest.mark.parametrize("counts", [COUNTS, (1, 1, 1)])
def test_extremes_that_do_not_broadcast_yet_stay_behind(counts):
    b = Builder(7)
    x = start(b, K, 1, 1)
    before = [(b.conv(x, K, n, (1, 1)), n) for n in counts]
    ys = [b.op("Max", y, b.random(1, n, 1, 1)) for y, n in before]
    (fold,) = merged(optimized(b.model(*ends(b, *ys)), {"n": 1}))
    assert fold.nodes == ("Conv", "Split")


def test_convolutions_that_went_along_are_not_merged_again():
    b = Builder()
    x, outputs = start(b), []
    for y in heads(b, x, (1, 1, 1)):
        y = b.op("Tanh", y)
        outputs.append(b.op("Mul", *(b.conv(y, 1, 1) for _ in range(2))))
    folded = optimized(b.model(*ends(b, *outputs)), *LARGER)
    assert merged(folded)[0].nodes == ("Conv", "Tanh", "Conv", "Conv", "Mul", "Split")


@pytest.mark.parametrize("how", ["output", "kept", "captured", "read"])
def test_what_others_need_is_cut_before(how):
    b = Builder()
    x = start(b)
    ys = [b.conv(x, K, count, (1, 1), output=f"y{count}") for count in COUNTS]
    outputs = ends(b, *(b.op("Relu", y) for y in ys))
    feeds = {}
    if how == "output":
        outputs.append("y2")
    if how == "read":
        outputs.append(b.op("Flatten", "y2"))
    if how == "captured":
        b.input(name="c", elem_type=TensorProto.BOOL)
        bodies = {}
        for branch in ("then_branch", "else_branch"):
            out = helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, None)
            node = helper.make_node("Exp", ["y2"], [f"{branch}_out"])
            bodies[branch] = helper.make_graph([node], branch, [], [out])
        outputs.append(b.op("If", "c", **bodies))
        feeds = {"c": np.asarray(True)}
    model = b.model(*outputs)
    given = [{**feeds_for(model, size), **feeds} for size in SIZES]
    folded = optimized(model, feeds=given, keep=["y2"] if how == "kept" else [])
    assert merged(folded)[0].nodes == ("Conv", "Split")
    assert "y2" in {name for node in folded.model.graph.node for name in node.output}


def test_parts_that_are_outputs():
    b = Builder()
    x = start(b)
    for name, count in (("a", 4), ("b", 2)):
        b.conv(x, K, count, (1, 1), output=name)
    folded = optimized(b.model("b", "a"), *SIZES)
    merged(folded)
    assert [value.name for value in folded.model.graph.output] == ["b", "a"]


def test_a_part_that_is_read_before_the_next_is_made():
    b = Builder()
    x = start(b)
    first, second = (b.op("Flatten", b.conv(x, K, count, (1, 1))) for count in (4, 2))
    merged(optimized(b.model(first, second), *SIZES))


# Weights, types, places --------------------------------------------------------------------------


def test_weights_that_are_shared_stay_shared():
    """A detector's heads are the same at every size of its pyramid."""
    b = Builder()
    given = [(b.random(count, K, 3, 3), b.random(count)) for count in (20, 4)]
    ys = []
    for level in "xyz":
        x = start(b, name=level)
        ys += [b.op("Conv", x, *weights, pads=[1] * 4) for weights in given]
    folded = optimized(b.model(*ends(b, *ys)), *SIZES)
    merged(folded, 3)
    rows = [t.dims[0] for t in folded.model.graph.initializer if list(t.dims[1:]) == [K, 3, 3]]
    assert rows == [24]


def test_weights_that_others_read_stay():
    b = Builder()
    x = start(b)
    weight, bias = b.random(4, K, 1, 1), b.random(4)
    ys = [b.op("Conv", x, weight, bias), b.conv(x, K, 2, (1, 1))]
    ys.append(b.op("Conv", x, weight, bias, strides=[2, 2]))
    folded = optimized(b.model(*ends(b, *ys)), *SIZES)
    merged(folded)
    assert {weight, bias} <= {t.name for t in folded.model.graph.initializer}


def test_narrow_layers_stay_together():
    """Bytes count for more than multiply-adds there, by the model of the cost."""
    b = Builder()
    x = start(b)
    y = b.op("Mul", *(b.conv(x, K, 4, (1, 1)) for _ in range(2)))
    z = b.op("Mul", *(b.conv(y, 4, 4, (1, 1)) for _ in range(2)))
    folded = optimized(b.model(z), *SIZES)
    merged(folded, 2)
    assert folded.ops == {"Tanh": 1, "Conv": 2, "Split": 2, "Mul": 2}


def test_float16():
    b = Builder(elem_type=TensorProto.FLOAT16)
    merged(optimized(b.model(*ends(b, *heads(b, start(b)))), *SIZES))


def test_fixed_sizes():
    b = Builder()
    ys = heads(b, start(b, K, 7, 5))
    assert merged(optimized(b.model(*ends(b, *ys)), {"n": 2}))[0].after[0].shape == ("n", 16, 7, 5)


def test_inside_a_body():
    b = Builder()
    x = start(b)
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        inner = Builder(b.opset, prefix=f"{branch}_")
        ys = ends(inner, *heads(inner, x))
        outs = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in ys]
        bodies[branch] = helper.make_graph(inner.nodes, branch, [], outs, inner.initializers)
    b.input(name="c", elem_type=TensorProto.BOOL)
    outputs = b.ops("If", "c", outputs=3, **bodies)
    model = b.model(*outputs)
    feeds = [{**feeds_for(model, size), "c": np.asarray(True)} for size in SIZES]
    merged(optimized(model, feeds=feeds), 2)


def test_scales_behind_a_head_join_it_first():
    b = Builder()
    ys = heads(b, start(b))
    ys[1] = b.op("Mul", ys[1], b.constant(0.7))
    folded = optimized(b.model(*ends(b, *ys)), *SIZES)
    assert merged(folded)[0].nodes == ("Conv", "Split")
    assert "Mul" not in folded.ops


def test_a_detector_of_faces():
    """Pointwise and depthwise layers for each of four heads, as YuNet has them."""
    b = Builder()
    x, outputs = start(b), []
    for count, ends_in in ((1, "Sigmoid"), (4, ""), (1, "Sigmoid"), (10, "")):
        y = b.conv(b.conv(x, K, count, (1, 1)), count, count, group=count, pads=[1] * 4)
        y = b.op("Transpose", y, perm=[0, 2, 3, 1])
        outputs.append(b.op(ends_in, y) if ends_in else y)
    folded = optimized(b.model(*outputs), *LARGER)
    assert merged(folded)[0].nodes == ("Conv", "Conv", "Split")
    assert folded.ops["Conv"] == 2


def test_wide_blocks_alone_are_for_tune():
    b = Builder()
    model = b.model(*ends(b, *heads(b, start(b), (8, 8))))
    assert "merges" not in {fold.step for fold in onnxfuse.optimize(model).report.folds}
    report = optimize_with("merges sooner", model).report
    assert [fold.step for fold in report.folds] == ["merges sooner"]
    b = Builder()
    parts = b.model(*ends(b, *heads(b, start(b), (16, 32))))
    assert not optimize_with("merges sooner", parts).report.folds
