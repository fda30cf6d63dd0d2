"""Parts of what a convolution makes become convolutions by themselves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from onnxfuse.pipeline import optimize_with
from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized
from tests.rewrites.cut import (
    HALVES,
    SIZES,
    C,
    K,
    behind,
    conv,
    part,
    rewritten,
    silu,
    split,
    start,
)
from tests.rewrites.upsampled import up
from tests.rewrites.ways import clip, gelu_halved_last


def test_each_part_has_its_rows_and_its_part_of_the_bias():
    b = Builder()
    weight, bias = b.random(C, K, 1, 1), b.random(C)
    y = silu(b, b.op("Conv", start(b), weight, bias))
    folded = optimized(b.model(behind(b, split(b, y, (48, 16)), (48, 16))), *SIZES)
    first, second = rewritten(folded)
    assert first.formula == "y = act(W * x + b), channels 0 to 47 of 64 by themselves"
    assert second.formula == "y = act(W * x + b), channels 48 to 63 of 64 by themselves"
    assert first.nodes == second.nodes == ("Conv", "Sigmoid", "Mul")
    assert [op for _, op in second.replaced] == ["Conv", "Sigmoid", "Mul", "Split"]
    assert second.after[0].shape == ("n", 16, "h", "w")
    old = {t.name: numpy_helper.to_array(t) for t in b.initializers}
    new = {t.name: numpy_helper.to_array(t) for t in folded.model.graph.initializer}
    for fold, rows in ((first, slice(0, 48)), (second, slice(48, 64))):
        assert fold.source == "t_2"
        for given, name in zip(fold.after[0].constants, (weight, bias), strict=True):
            np.testing.assert_array_equal(new[given], old[name][rows])
    assert not {weight, bias} & set(new)


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("sizes", [(16, 32, 16), HALVES, None])
@pytest.mark.parametrize("opset", [7, 11, 13, 18, 22])
def test_every_split_in_every_opset(opset, sizes, axis):
    b = Builder(opset)
    parts = split(b, silu(b, conv(b, start(b))), sizes, axis=axis)
    rewritten(optimized(b.model(behind(b, parts, sizes or HALVES)), *SIZES), len(parts))


@pytest.mark.parametrize("opset", [18, 22])
def test_a_last_part_that_is_smaller(opset):
    b = Builder(opset)
    parts = split(b, silu(b, conv(b, start(b), 528)), None, 17)
    folded = optimized(b.model(behind(b, parts, [32] * 16 + [16])), *SIZES[1:])
    assert rewritten(folded, 17)[-1].after[0].settings.endswith("20 -> 16")


@pytest.mark.parametrize("opset", [7, 9, 10, 13, 18, 22])
def test_slices(opset):
    b = Builder(opset)
    y = silu(b, conv(b, start(b)))
    parts = [part(b, y, 32, 2**31 - 1), part(b, y, -64, 32, axis=1 if opset < 10 else -3)]
    rewritten(optimized(b.model(behind(b, parts)), *SIZES))


@pytest.mark.parametrize("form", ["slice", "split"])
@pytest.mark.parametrize("parts", [[(0, 16), (32, 64)], [(48, 64), (0, 32)], [(16, 48)]])
def test_what_no_part_holds_is_not_computed(parts, form):
    b = Builder()
    y = silu(b, conv(b, start(b)))
    if form == "slice":
        names = [part(b, y, *bounds) for bounds in parts]
    else:
        given = dict(
            zip(
                [(0, 16), (16, 32), (32, 48), (48, 64)],
                b.ops("Split", y, outputs=4, axis=1),
                strict=True,
            )
        )
        parts = [bounds for bounds in given if bounds in {(0, 16), (32, 48)}]
        names = [given[bounds] for bounds in parts]
    sizes = [b - a for a, b in parts]
    folded = optimized(b.model(behind(b, names, sizes)), *SIZES)
    rewritten(folded, len(parts))
    rows = sorted(
        t.dims[0] for t in folded.model.graph.initializer if list(t.dims[1:]) == [K, 1, 1]
    )
    assert rows == sorted(sizes)


def test_outputs_of_a_split_that_have_no_name():
    """ONNX Runtime does not survive them."""
    b = Builder()
    y = silu(b, conv(b, start(b), 96))
    parts = split(b, y, (32, 16, 48), ["a", "", "c"])
    model = b.model(behind(b, [parts[0], parts[2]], (32, 48)))
    rewritten(optimized(model, *SIZES, original_runs=False))


def test_every_other_channel():
    b = Builder()
    y = silu(b, conv(b, start(b)))
    ends, axis, step = b.constant([C]), b.constant([1]), b.constant([2])
    parts = [b.op("Slice", y, b.constant([n]), ends, axis, step) for n in (0, 1)]
    folds = rewritten(optimized(b.model(behind(b, parts)), *SIZES))
    assert folds[1].formula == "y = act(W * x + b), 32 channels of 64 by themselves"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 1], "pads": [1, 0, 2, 1]},
        {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
    ],
)
def test_larger_kernels(settings, bias):
    b = Builder()
    y = silu(b, conv(b, start(b), 128, (3, 2), bias=bias, **settings))
    sizes = [{"n": 1, "h": 9, "w": 8}, {"n": 2, "h": 6, "w": 11}]
    rewritten(optimized(b.model(behind(b, split(b, y, (64, 64)), (64, 64))), *sizes))


@pytest.mark.parametrize("settings", [{"strides": [2, 3]}, {"pads": [1, 0, 0, 2]}])
def test_pointwise_kernels(settings):
    b = Builder()
    y = silu(b, conv(b, start(b), **settings))
    rewritten(optimized(b.model(behind(b, split(b, y))), *SIZES))


ELEMENTWISE = {
    "Relu": (7, lambda b, x: b.op("Relu", x)),
    "Clip by attributes": (7, lambda b, x: clip(b, x, -0.5, 3.0)),
    "Clip": (13, lambda b, x: clip(b, x, -0.5, 3.0)),
    "Clip from above": (13, lambda b, x: b.op("Clip", x, "", b.constant(2.0))),
    "LeakyRelu": (7, lambda b, x: b.op("LeakyRelu", x, alpha=0.2)),
    "HardSwish": (14, lambda b, x: b.op("HardSwish", x)),
    "GELU in steps": (13, gelu_halved_last),
    "Gelu": (20, lambda b, x: b.op("Gelu", x, approximate="tanh")),
    "two in a row": (13, lambda b, x: b.op("Tanh", b.op("Relu", x))),
    "several inputs": (13, lambda b, x: b.op("Max", b.op("Tanh", x), x, b.op("Exp", x))),
    "PRelu, (C, 1, 1)": (13, lambda b, x: b.op("PRelu", x, b.random(C, 1, 1))),
    "PRelu, (1, C, 1, 1)": (9, lambda b, x: b.op("PRelu", x, b.random(1, C, 1, 1))),
    "PRelu, (1,)": (7, lambda b, x: b.op("PRelu", x, b.constant([0.3]))),
    "Max, (C, 1, 1)": (13, lambda b, x: b.op("Max", b.random(C, 1, 1), x)),
    "Min, (1, C, 1, 1)": (13, lambda b, x: b.op("Min", x, b.random(1, C, 1, 1))),
    "Min, (1, 1)": (8, lambda b, x: b.op("Min", x, b.random(1, 1))),
    "Max, (1, 1, 1, 1)": (8, lambda b, x: b.op("Max", x, b.random(1, 1, 1, 1))),
    "a gate, (C, 1, 1)": (
        13,
        lambda b, x: b.op("Mul", x, b.op("Tanh", b.op("Mul", x, b.random(C, 1, 1)))),
    ),
}


@pytest.mark.parametrize("way", ELEMENTWISE)
def test_elementwise_work(way):
    opset, act = ELEMENTWISE[way]
    b = Builder(opset)
    y = act(b, conv(b, start(b)))
    folded = optimized(b.model(behind(b, split(b, y, (16, 48)), (16, 48))), *SIZES)
    rewritten(folded)


def test_a_constant_that_is_read_twice_is_cut_once():
    b = Builder()
    x, bound = conv(b, start(b)), b.random(C, 1, 1)
    y = b.op("Tanh", b.op("Max", b.op("Tanh", b.op("Max", x, bound)), bound))
    folded = optimized(b.model(behind(b, split(b, y))), *SIZES)
    rewritten(folded)
    assert sum(list(t.dims) == [32, 1, 1] for t in folded.model.graph.initializer) == 2


def test_no_elementwise_work():
    b = Builder()
    model = b.model(behind(b, split(b, conv(b, start(b)))))
    folds = rewritten(optimized(model, *SIZES, skip=["folds"]))
    assert folds[0].formula == "y = W * x + b, channels 0 to 31 of 64 by themselves"
    assert "Split" not in optimized(model, *SIZES).ops


@pytest.mark.parametrize("group", [C, 16, 8])
def test_groups_of_channels_between(group):
    """One for each channel, or one for a few: whole ones go with their parts."""
    b = Builder()
    y = silu(b, conv(b, start(b)))
    y = b.conv(y, C, C, (3, 3), group=group, pads=[1, 1, 1, 1], bias=group != C)
    parts = split(b, b.op("Tanh", y), (16, 48))
    y = b.op("Mul", parts[0], b.op("ReduceMean", parts[1], axes=[1]))
    y = b.conv(y, 16, 5, (1, 1))
    folded = optimized(b.model(b.op("Relu", y), parts[1]), *SIZES)
    rewritten(folded)
    found = [
        helper.get_node_attr_value(n, "group")
        for n in folded.model.graph.node
        if n.op_type == "Conv" and any(a.name == "group" for a in n.attribute)
    ]
    assert sorted(g for g in found if g > 1) == sorted([group // 4, group * 3 // 4])


def test_depthwise_strides_and_dilations():
    b = Builder()
    y = conv(b, start(b), strides=[2, 1])
    y = b.conv(b.op("Relu", y), C, C, (3, 2), group=C, strides=[1, 2], dilations=[2, 1])
    y = b.conv(b.op("Relu", y), C, C, (1, 2), group=C, auto_pad="SAME_UPPER")
    parts = split(b, y)
    model = b.model(b.op("Relu", b.conv(b.op("Mul", *parts), 32, 4, (1, 1))))
    folds = rewritten(optimized(model, {"n": 1, "h": 19, "w": 16}, {"n": 2, "h": 11, "w": 7}))
    assert folds[0].nodes == ("Conv", "Relu", "Conv", "Relu", "Conv")


@pytest.mark.parametrize("how", ["MaxPool", "AveragePool", "Concat", "Mul", "Upsample", "alone"])
def test_ways_on_to_a_convolution(how):
    b = Builder(9)
    first, second = split(b, silu(b, conv(b, start(b))))
    y = {
        "MaxPool": lambda: b.op("MaxPool", first, kernel_shape=[2, 2]),
        "AveragePool": lambda: b.op("AveragePool", first, kernel_shape=[2, 2]),
        "Concat": lambda: b.op("Concat", first, first, axis=1),
        "Mul": lambda: b.op("Mul", first, b.op("Relu", first)),
        "Upsample": lambda: up(b, first, 2),
        "alone": lambda: first,
    }[how]()
    y = b.conv(y, C if how == "Concat" else 32, 4, (1, 1))
    other = b.op("Flatten", second)
    rewritten(optimized(b.model(b.op("Relu", y), other), *SIZES))


@pytest.mark.parametrize("how", ["output", "kept", "captured"])
@pytest.mark.parametrize("form", ["split", "slice"])
def test_parts_that_stay_under_their_names(form, how):
    b = Builder()
    y = silu(b, conv(b, start(b)))
    if form == "split":
        parts = split(b, y, HALVES, ["first", "second"])
    else:
        parts = [part(b, y, 0, 32, "first"), part(b, y, 32, 64, "second")]
    outputs = [behind(b, parts)]
    if how == "output":
        outputs += ["first"]
    if how == "captured":
        b.input(name="c", elem_type=TensorProto.BOOL)
        outputs.append(b.op("If", "c", **bodies_that_read("first")))
    model = b.model(*outputs)
    feeds = [
        {**feeds_for(model, size), **({"c": np.asarray(True)} if how == "captured" else {})}
        for size in SIZES
    ]
    folded = optimized(model, feeds=feeds, keep=["first"] if how == "kept" else [])
    rewritten(folded)
    assert "first" in {name for node in folded.model.graph.node for name in node.output}


def bodies_that_read(name: str) -> dict[str, onnx.GraphProto]:
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, None)
        node = helper.make_node("Exp", [name], [f"{branch}_out"])
        bodies[branch] = helper.make_graph([node], branch, [], [out])
    return bodies


def test_all_parts_that_are_outputs_but_one():
    b = Builder()
    parts = split(b, silu(b, conv(b, start(b))), HALVES, ["first", "second"])
    y = b.op("Relu", b.conv(parts[0], 32, 4))
    rewritten(optimized(b.model("second", y), *SIZES))


def test_float16():
    b = Builder(elem_type=TensorProto.FLOAT16)
    rewritten(optimized(b.model(behind(b, split(b, silu(b, conv(b, start(b)))))), *SIZES))


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_types_that_runtimes_lack(kind):
    b = Builder(13, elem_type=kind)
    y = b.op("Exp", conv(b, start(b)))
    result = onnxfuse.optimize(b.model(behind(b, split(b, y))))
    assert [fold.step for fold in result.report.folds] == ["splits"] * 2


def test_fixed_sizes():
    b = Builder()
    y = silu(b, conv(b, start(b, K, 7, 5)))
    folded = optimized(b.model(behind(b, split(b, y))), {"n": 2})
    assert rewritten(folded)[0].after[0].shape == ("n", 32, 7, 5)


def test_weights_that_are_shared_stay_shared():
    b = Builder()
    weight, bias = b.random(C, K, 1, 1), b.random(C)
    heads = [silu(b, b.op("Conv", start(b, name=name), weight, bias)) for name in "xz"]
    outputs = [behind(b, split(b, y)) for y in heads]
    folded = optimized(b.model(*outputs), *SIZES)
    rewritten(folded, 4)
    rows = [t.dims[0] for t in folded.model.graph.initializer if list(t.dims[1:]) == [K, 1, 1]]
    assert rows == [32, 32]


def test_a_weight_that_others_read_stays():
    b = Builder()
    weight, bias = b.random(C, K, 1, 1), b.random(C)
    x = start(b)
    y = behind(b, split(b, silu(b, b.op("Conv", x, weight, bias))))
    other = b.op("Relu", b.op("Conv", x, weight, bias, strides=[2, 2]))
    folded = optimized(b.model(y, other), *SIZES)
    rewritten(folded)
    assert {weight, bias} <= {t.name for t in folded.model.graph.initializer}


def test_a_split_of_a_part():
    b = Builder()
    first, second = split(b, silu(b, conv(b, start(b))))
    parts = split(b, silu(b, b.conv(second, 32, 32, (1, 1))), (16, 16))
    y = b.op("Concat", first, *parts, axis=1)
    folded = optimized(b.model(b.op("Relu", b.conv(y, C, 4))), *SIZES)
    rewritten(folded, 4)


def test_a_block_of_a_detector():
    """What scales and shifts joins the convolutions: before, and for one part after."""
    b = Builder()
    y = silu(b, b.batch_norm(conv(b, start(b), bias=False), C))
    first, second = split(b, y)
    inner = silu(b, b.batch_norm(b.conv(second, 32, 32, pads=[1] * 4), 32))
    inner = silu(b, b.batch_norm(b.conv(inner, 32, 32, pads=[1] * 4), 32))
    y = b.op("Concat", first, second, b.op("Add", second, inner), axis=1)
    y = silu(b, b.batch_norm(b.conv(y, 96, 24, (1, 1)), 24))
    folded = optimized(b.model(y), *SIZES)
    rewritten(folded)
    assert folded.ops == {"Tanh": 1, "Conv": 5, "Sigmoid": 5, "Mul": 5, "Add": 1, "Concat": 1}


def test_a_scale_behind_one_part_joins_its_convolution():
    b = Builder()
    first, second = split(b, b.op("Relu", conv(b, start(b))))
    first = b.op("Tanh", b.batch_norm(b.op("Relu", b.op("Mul", first, b.positive(32, 1, 1))), 32))
    folded = optimized(b.model(behind(b, [first, second])), *SIZES)
    rewritten(folded)
    assert "Mul" not in folded.ops


def test_upsampled_maps_come_first():
    b = Builder()
    y = silu(b, b.conv(up(b, start(b, 96), 2), 96, 128, pads=[1] * 4))
    folded = optimized(b.model(behind(b, split(b, y, (64, 64)), (64, 64))), *SIZES[1:])
    assert {fold.step for fold in folded.report.folds} == {"phases"}


@pytest.mark.parametrize("sizes", [(4, 2, 10), (8, 24)])
def test_parts_that_do_not_pay_are_for_tune(sizes):
    """They are not merged again, either."""
    b = Builder()
    parts = split(b, conv(b, start(b), sum(sizes)), sizes)
    model = b.model(*(b.op("Flatten", y) for y in parts))
    assert not onnxfuse.optimize(model).report.folds
    result = optimize_with("splits sooner", model)
    assert {fold.step for fold in result.report.folds} == {"splits sooner"}
    operators = [node.op_type for node in result.model.graph.node]
    assert operators == ["Tanh", *["Conv"] * len(sizes), *["Flatten"] * len(sizes)]


@pytest.mark.parametrize("count", [32, 64])
def test_a_gate_at_the_end(count):
    """No other Conv follows, but parts that fill blocks cost no more apart."""
    b = Builder()
    first, second = split(b, conv(b, start(b), 2 * count), (count, count))
    y = b.op("Mul", first, b.op("Sigmoid", second))
    folded = optimized(b.model(b.op("Flatten", y)), *SIZES)
    assert folded.ops == {"Tanh": 1, "Conv": 2, "Sigmoid": 1, "Mul": 1, "Flatten": 1}


def test_a_part_that_is_what_the_convolution_reads():
    b = Builder()
    weight = np.concatenate([np.eye(K), b.values(3, K)])[..., None, None]
    y = b.op("Conv", start(b), b.constant(weight))
    same, other = split(b, y, (K, 3))
    folded = optimized(b.model(b.op("Exp", same), b.op("Flatten", other)), *SIZES)
    assert "Split" not in folded.ops


def test_inside_a_body():
    b = Builder()
    x = start(b)
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        inner = Builder(b.opset, prefix=f"{branch}_")
        y = behind(inner, split(inner, silu(inner, conv(inner, x))))
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", 5, "h", "w"])
        bodies[branch] = helper.make_graph(inner.nodes, branch, [], [out], inner.initializers)
    b.input(name="c", elem_type=TensorProto.BOOL)
    model = b.model(b.op("If", "c", **bodies))
    feeds = [{**feeds_for(model, SIZES[0]), "c": np.asarray(flag)} for flag in (True, False)]
    rewritten(optimized(model, feeds=feeds), 4)
