"""Outputs that nobody reads, that have no name, or that lie within what is one map."""

from __future__ import annotations

import pytest
from onnx import helper

import onnxfuse
from tests.handmade import build
from tests.lift.building import Builder
from tests.lift.comparing import optimized

C = 4
SIZES = ({"n": 2, "h": 5, "w": 4}, {"n": 1, "h": 3, "w": 6})


@pytest.mark.parametrize("op", ["MatMul", "Sub"])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (5, 6), (1, 5, 6)])
def test_what_is_added_at_each_position_stays(shape, op):
    """A product from the left is one over channels; a table of positions behind it is none."""
    b = Builder()
    y = b.op("MatMul", b.random(5, C), b.input("n", C, 6))
    y = b.op("Add" if op == "MatMul" else op, y, b.random(*shape))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"MatMul": 1, "Add" if op == "MatMul" else op: 1}


def test_a_table_of_positions_between_layers_stays():
    b = Builder()
    x = b.op("Transpose", b.input("n", C, 6, 5), perm=[0, 2, 3, 1])
    y = b.op("Add", b.op("MatMul", x, b.random(C, C)), b.random(6, 5, C))
    y = b.op("Transpose", y, perm=[0, 3, 1, 2])
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops["MatMul"] == folded.ops["Add"] == 1


def test_a_tensor_within_a_stretch_that_is_one_convolution_is_read_elsewhere():
    b = Builder()
    rows = b.op(
        "MatMul", b.op("Transpose", b.input("n", C, "h", "w"), perm=[0, 2, 3, 1]), b.random(C, 3)
    )
    t = b.op("Transpose", b.op("Add", rows, b.random(3)), perm=[0, 3, 1, 2])
    y = b.op("Gather", t, b.constant([0, 1]), axis=1)
    z = b.conv(rows, 18, 2, (1, 1))  # it takes the height for channels
    optimized(b.model(y, z), {"n": 2, "h": 18, "w": 4})


@pytest.mark.parametrize("reader", ["batch_norm", "conv"])
def test_an_operator_of_somebody_elses_that_makes_nothing_reads_a_tensor(reader):
    b = Builder()
    t = b.conv(b.input("n", C, "h", "w"), C, C)
    y = b.batch_norm(t, C)
    sink = helper.make_node("Sink", [y if reader == "batch_norm" else t], [], domain="own")
    imports = [helper.make_opsetid("own", 1)]
    model = build([*b.nodes, sink], b.inputs, [y], b.initializers, imports=imports)
    ops = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert sorted(ops) == (
        ["Conv", "Sink"] if reader == "batch_norm" else ["BatchNormalization", "Conv", "Sink"]
    )


def test_outputs_without_a_name_are_none():
    b = Builder()
    x = b.input("n", C, "h", "w")
    half, _ = b.ops("Split", x, b.constant([2, 2]), outputs=["half", ""], axis=1)
    y = b.conv(half, 2, 5, (1, 1))
    model = build(b.nodes, b.inputs, [y], b.initializers)
    ops = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert ops == ["Split", "Conv"]


@pytest.mark.parametrize(
    ("kernel", "given"),
    [
        ((1, 1), {"pads": [1, 0, 2, 1]}),
        ((1, 1), {"pads": [3, 3, 3, 3], "strides": [2, 2], "output_padding": [1, 1]}),
        ((2, 2), {"pads": [4, 4, 4, 4], "strides": [2, 2]}),
        ((1, 3), {"pads": [1, 0, 2, 1]}),
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution_that_crops_much_is_proved_on_a_larger_image(kernel, given, group):
    b = Builder()
    weight = b.random(C, 6 // group, *kernel)
    t = b.op("ConvTranspose", b.input("n", C, "h", "w"), weight, group=group, **given)
    y = b.conv(t, 6, 5, (1, 1))
    folded = optimized(b.model(y), {"n": 1, "h": 12, "w": 11}, {"n": 2, "h": 9, "w": 14})
    assert folded.ops == {"ConvTranspose": 1, "Conv": 1} or folded.ops == {"ConvTranspose": 1}
