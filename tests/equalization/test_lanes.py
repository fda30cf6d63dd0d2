"""Which channels have one scale."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxfuse.equalization.lanes import FIXED, channels
from onnxfuse.equalization.layers import layers
from tests.equalization.test_layers import graph_of
from tests.lift.building import Builder

C = 4


def groups_of(model):
    """Groups by tensor."""
    graph = graph_of(model)
    return channels(graph, layers(graph)).groups


def two_layers(b):
    x = b.input("n", 3, 8, 8)
    return b.conv(x, 3, C, output="a"), b.conv(x, 3, C, output="b")


def end(b, x, count=C):
    return b.model(b.conv(x, count, 2, (1, 1)))


def test_every_channel_of_a_layer_has_its_own_scale():
    b = Builder()
    a, other = two_layers(b)
    joined = end(b, b.op("Concat", a, other, axis=1, output="joined"), 2 * C)
    groups = groups_of(joined)
    assert len({*groups["a"], *groups["b"], FIXED}) == 2 * C + 1
    assert list(groups["joined"]) == [*groups["a"], *groups["b"]]


def test_concat_with_what_no_layer_makes():
    b = Builder()
    a, _ = two_layers(b)
    z = b.input("n", 2, 6, 6, name="z")
    groups = groups_of(end(b, b.op("Concat", z, a, axis=1, output="joined"), C + 2))
    assert list(groups["joined"]) == [FIXED, FIXED, *groups["a"]]
    assert FIXED not in groups["a"]


def test_concat_of_a_tensor_with_itself():
    b = Builder()
    a, _ = two_layers(b)
    groups = groups_of(end(b, b.op("Concat", a, a, axis=1, output="joined"), 2 * C))
    assert set(groups["joined"]) <= {FIXED, *groups["a"]}


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Sum", "Max", "Min"])
def test_joined_tensors_have_one_scale(op_type):
    b = Builder()
    a, other = two_layers(b)
    groups = groups_of(end(b, b.op(op_type, a, other, output="joined")))
    assert list(groups["a"]) == list(groups["b"]) == list(groups["joined"])
    assert len({*groups["a"], FIXED}) == C + 1


def test_a_chain_of_sums_has_one_scale():
    b = Builder()
    x = b.conv(b.input("n", 3, 8, 8), 3, C, output="a")
    for name in ("b", "c"):
        x = b.op("Add", x, b.conv(x, C, C, pads=[1] * 4, output=name))
    groups = groups_of(end(b, x))
    assert list(groups["a"]) == list(groups["b"]) == list(groups["c"])
    assert FIXED not in groups["a"]


def test_one_fixed_tensor_fixes_the_sum():
    b = Builder()
    a, other = two_layers(b)
    x = b.op("Add", a, other)
    groups = groups_of(b.model(b.conv(x, C, 2, (1, 1)), b.op("Sigmoid", other)))
    assert not np.any(groups["a"])


def test_split_and_slice_take_their_channels():
    b = Builder(opset=17)
    a, other = two_layers(b)
    sizes = b.constant([1, 3])
    first, second = b.ops("Split", a, sizes, axis=1, outputs=["first", "second"])
    cut = b.op("Slice", other, *(b.constant([n]) for n in (1, 4, 1, 2)), output="cut")
    x = b.op("Concat", second, first, cut, axis=1, output="joined")
    groups = groups_of(end(b, x, C + 2))
    assert list(groups["first"]) == list(groups["a"][:1])
    assert list(groups["second"]) == list(groups["a"][1:])
    assert list(groups["cut"]) == list(groups["b"][1::2])
    assert list(groups["joined"]) == [*groups["second"], *groups["first"], *groups["cut"]]


@pytest.mark.parametrize("op_type", ["Slice", "Split"])
def test_cuts_through_pixels_fix_scales(op_type):
    b = Builder(opset=17)
    a, _ = two_layers(b)
    if op_type == "Slice":
        x = b.op("Slice", a, *(b.constant([n]) for n in (0, 3, 2)))
    else:
        x = b.ops("Split", a, b.constant([3, 3]), axis=2, outputs=2)[0]
    assert not np.any(groups_of(end(b, x))["a"])


def test_a_sum_of_channels_on_other_axes_fixes_them():
    """A square matrix has its channels along the rows, the other along the columns."""
    b = Builder()
    left = b.op("MatMul", b.random(C, 3), b.input(3, C), output="a")
    right = b.op("MatMul", b.input(C, 3, name="z"), b.random(3, C), output="b")
    groups = groups_of(b.model(b.op("MatMul", b.random(2, C), b.op("Add", left, right))))
    assert not np.any(groups["a"])
    assert not np.any(groups["b"])


def test_a_layer_that_reads_another_axis_fixes_scales():
    b = Builder()
    x = b.op("MatMul", b.input("n", C, 3), b.random(3, C), output="a")
    assert not np.any(groups_of(b.model(b.op("MatMul", b.random(2, C), x)))["a"])


def test_a_sum_of_sizes_that_are_not_known_fixes_scales():
    b = Builder()
    a, other = two_layers(b)
    model = end(b, b.op("Add", a, other))
    graph = graph_of(model)
    graph.types = {n: t for n, t in graph.types.items() if n not in "ab"}
    assert not np.any(channels(graph, layers(graph)).groups["a"])


def test_a_product_scales_with_the_first_of_its_factors():
    b = Builder()
    a, other = two_layers(b)
    groups = groups_of(end(b, b.op("Mul", a, other, output="product")))
    assert list(groups["product"]) == list(groups["a"])
    assert not np.any(groups["b"])


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [((0.0,), True), ((-1.0,), False), ((0.0, 6.0), False), ((), False)],
)
def test_clip(bounds, passes):
    b = Builder()
    a, _ = two_layers(b)
    groups = groups_of(end(b, b.op("Clip", a, *(b.constant(v) for v in bounds))))
    assert bool(np.all(groups["a"])) == passes


def test_clip_at_a_bound_that_is_computed():
    b = Builder()
    a, _ = two_layers(b)
    groups = groups_of(end(b, b.op("Clip", a, b.input(name="low"))))
    assert not np.any(groups["a"])


def test_an_operator_of_another_domain_fixes_scales():
    b = Builder()
    a, _ = two_layers(b)
    model = end(b, b.op("Relu", a))
    next(node for node in model.graph.node if node.op_type == "Relu").domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert not np.any(groups_of(model)["a"])


def test_barred_nodes_let_nothing_through():
    b = Builder()
    a, other = two_layers(b)
    model = b.model(b.op("Add", end_of(b, b.op("Relu", a)), end_of(b, b.op("Relu", other))))
    graph = graph_of(model)
    barred = [graph.producers[graph.nodes[graph.consumers[a][0]].output[0]]]
    groups = channels(graph, layers(graph), barred).groups
    assert not np.any(groups["a"])
    assert np.all(groups["b"])


def test_a_barred_layer_is_none():
    b = Builder()
    a, _ = two_layers(b)
    graph = graph_of(end(b, b.op("Relu", a)))
    found = channels(graph, layers(graph), [graph.producers["a"]])
    assert "a" not in found.groups
    assert graph.producers["a"] not in found.before


def end_of(b, x):
    return b.conv(x, C, 2, (1, 1))
