"""Maps across a Transpose: linear layers with channels last, BatchNorm with channels first."""

import itertools

import numpy as np
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized

SIZES = ({"n": 2, "h": 4, "w": 4}, {"n": 1, "h": 3, "w": 6})
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def linear(b, x, inputs, outputs, bias=True):
    y = b.op("MatMul", x, b.random(inputs, outputs))
    return b.op("Add", y, b.random(outputs)) if bias else y


@pytest.fixture
def b():
    return Builder()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [4, 3])
def test_batch_norm_behind_a_linear_layer_with_channels_last(b, bias, outputs):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    y = b.op("Transpose", linear(b, x, 4, outputs, bias), perm=FIRST)
    y = b.op("Mul", b.batch_norm(y, outputs), b.random(outputs, 1, 1))
    folded = optimized(b.model(b.op("Relu", y)), *SIZES)
    assert folded.ops == {"Relu": 2, "MatMul": 1, "Add": 1, "Transpose": 1}


def test_a_scale_alone_needs_no_add(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    y = b.op("Transpose", linear(b, x, 4, 4, bias=False), perm=FIRST)
    folded = optimized(b.model(b.op("Mul", y, b.random(4, 1, 1))), *SIZES)
    assert folded.ops == {"Relu": 1, "MatMul": 1, "Transpose": 1}


def test_what_is_in_front_of_the_linear_layer_joins_too(b):
    x = b.op("Add", b.op("Relu", b.input("n", "h", "w", 4)), b.random(4))
    y = b.op("Transpose", linear(b, x, 4, 4), perm=FIRST)
    folded = optimized(b.model(b.batch_norm(y, 4)), *SIZES)
    assert folded.ops == {"Relu": 1, "MatMul": 1, "Add": 1, "Transpose": 1}


def test_the_narrower_side_is_turned(b):
    x = b.op("Relu", b.input("n", "h", "w", 2))
    y = b.op("Transpose", linear(b, x, 2, 6), perm=FIRST)
    folded = optimized(b.model(b.op("Relu", b.batch_norm(y, 6))), *SIZES)
    assert [n.op_type for n in folded.model.graph.node] == ["Relu", "Transpose", "Conv", "Relu"]


def test_batch_norm_in_front_of_a_linear_layer(b):
    x = b.batch_norm(b.op("Relu", b.input("n", 4, "h", "w")), 4)
    y = linear(b, b.op("Transpose", x, perm=LAST), 4, 8)
    folded = optimized(b.model(b.op("Relu", y)), *SIZES)
    assert folded.ops == {"Relu": 2, "MatMul": 1, "Add": 1, "Transpose": 1}


def test_a_linear_layer_in_front_of_a_convolution(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    y = b.op("Transpose", linear(b, x, 4, 4), perm=FIRST)
    folded = optimized(b.model(b.conv(y, 4, 4, (3, 3))), *SIZES)
    assert folded.ops == {"Relu": 1, "Conv": 1, "Transpose": 1}


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_other_ranks(rank):
    b = Builder()
    sizes = ("l", 3, 5)[: rank - 2]
    order = (0, rank - 1, *range(1, rank - 1))
    x = b.op("Relu", b.input("n", *sizes, 4))
    y = b.op("Transpose", linear(b, x, 4, 4, bias=False), perm=order)
    y = b.batch_norm(y, 4)
    folded = optimized(b.model(y), {"n": 2, "l": 5}, {"n": 1, "l": 3})
    assert folded.ops["BatchNormalization"] == 0
    assert folded.ops["MatMul"] + folded.ops["Gemm"] == 1


def test_without_perm_the_axes_are_reversed(b):
    x = b.op("Relu", b.input("n", "h", 3))
    y = b.op("Transpose", linear(b, x, 3, 3, bias=False))
    folded = optimized(b.model(b.op("Mul", y, b.random(3, 1, 1))), *SIZES)
    assert folded.ops["Mul"] == 1  # nothing says that axis 0 of (3, h, n) holds channels


# What must not fold ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_every_order_of_equal_sizes(order):
    b = Builder()
    x = b.op("Relu", b.input(4, 4, 4, 4))
    y = b.op("Transpose", linear(b, x, 4, 4), perm=order)
    folded = optimized(b.model(b.op("Relu", b.batch_norm(y, 4))), {})
    assert (folded.ops["BatchNormalization"] == 0) == (order[1] == 3) or order == (0, 1, 2, 3)


def test_the_linear_layers_output_is_needed_too(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    inner = linear(b, x, 4, 4)
    y = b.batch_norm(b.op("Transpose", inner, perm=FIRST), 4)
    folded = optimized(b.model(b.op("Relu", y), inner), *SIZES)
    assert inner in {name for node in folded.model.graph.node for name in node.output}


def test_the_transposed_tensor_is_needed_too(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    turned = b.op("Transpose", linear(b, x, 4, 4), perm=FIRST)
    folded = optimized(b.model(b.op("Relu", b.batch_norm(turned, 4)), turned), *SIZES)
    assert folded.ops["MatMul"] == 1


def test_something_that_is_not_affine_in_between(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    y = b.op("Tanh", b.op("Transpose", linear(b, x, 4, 4), perm=FIRST))
    folded = optimized(b.model(b.batch_norm(y, 4)), *SIZES)
    assert folded.ops["MatMul"] == folded.ops["Tanh"] == 1
    assert folded.ops["BatchNormalization"] + folded.ops["Conv"] == 1


def test_a_kernel_that_sees_neighbours_in_front_of_a_linear_layer(b):
    y = b.conv(b.op("Relu", b.input("n", 4, "h", "w")), 4, 4, (3, 3))
    y = linear(b, b.op("Transpose", y, perm=LAST), 4, 4)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Relu": 1, "Conv": 1, "Transpose": 1, "MatMul": 1, "Add": 1}


def test_a_constant_that_varies_over_space(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    y = b.op("Transpose", linear(b, x, 4, 4), perm=FIRST)
    folded = optimized(b.model(b.op("Mul", y, b.random(1, 1, 4))), {"n": 1, "h": 4, "w": 4})
    assert folded.ops["Mul"] == 1


def test_two_transposes_between_two_linear_layers(b):
    x = b.op("Relu", b.input("n", 4, "h", "w"))
    y = b.op("Transpose", b.batch_norm(x, 4), perm=LAST)
    y = b.op("Transpose", linear(b, y, 4, 4), perm=FIRST)
    folded = optimized(b.model(b.op("Relu", b.batch_norm(y, 4))), *SIZES)
    assert folded.ops == {"Relu": 2, "Conv": 1}


def test_the_report_names_the_transpose(b):
    x = b.op("Relu", b.input("n", "h", "w", 4))
    y = b.op("Transpose", linear(b, x, 4, 4), perm=FIRST)
    folded = optimized(b.model(b.batch_norm(y, 4)), *SIZES)
    (fold,) = folded.report.folds
    assert [op for _, op in fold.replaced] == ["MatMul", "Add", "Transpose", "BatchNormalization"]
    assert fold.nodes == ("MatMul", "Add", "Transpose")
    assert np.isfinite(fold.certificate.error)
