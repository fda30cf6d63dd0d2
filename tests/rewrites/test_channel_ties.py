"""Channels that carry nothing are left out: behind matrices, gates, Concats, poolings."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.rewrites.idle import (
    DEAD,
    LEFT,
    C,
    behind,
    conv,
    dying,
    gelu,
    matrix,
    start,
    thinned,
    weights,
)


def test_concats_of_several_parts():
    b = Builder()
    x = start(b)
    parts = [
        b.op("Tanh", conv(b, x, 6, 32, dead=range(4, 30))),
        b.op("Relu", conv(b, x, 6, 8, dead=[1])),
        b.op("Tanh", conv(b, x, 6, 48, dead=range(40))),
    ]
    joined = b.op("Concat", *parts, axis=-3)
    folded = thinned(b.model(behind(b, joined, 88)), left=32, count=80)
    assert sorted(weights(folded)) == [[5, 40, 1, 1], [8, 6, 1, 1], [16, 6, 1, 1], [16, 6, 1, 1]]


def test_a_part_that_is_joined_twice():
    b = Builder()
    x = b.op("Tanh", dying(b))
    joined = b.op("Tanh", b.op("Concat", x, x, axis=1))
    folded = thinned(b.model(behind(b, joined, 2 * C)))
    assert weights(folded) == [[16, 6, 1, 1], [5, 32, 1, 1]]


def test_halves_that_are_added_to_each_other():
    """The channels of one tensor that a sum joins crosswise go together."""
    b = Builder()
    x, z = (b.op("Tanh", conv(b, start(b, name=n), 6, C, dead=DEAD)) for n in "xz")
    joined = [b.op("Concat", *pair, axis=1) for pair in ((x, z), (z, x))]
    total = b.op("Tanh", b.op("Mul", *joined))
    folded = thinned(b.model(behind(b, total, 2 * C)))
    assert weights(folded)[-1] == [5, 2 * LEFT, 1, 1]


@pytest.mark.parametrize("bent", ["HardSigmoid", "Sigmoid"])
@pytest.mark.parametrize("one", [True, False])
def test_gates(bent, one):
    """0 times a gate is 0, whatever the gate is: its row goes with the channel."""
    b = Builder()
    x = b.op("Relu", conv(b, start(b), 6, C, (3, 3), dead=DEAD, bias=-1.0))
    squeezed = b.op("Relu", conv(b, b.op("GlobalAveragePool", x), C, 8))
    gate = b.op(bent, conv(b, squeezed, 8, C))
    gated = b.op("Mul", gate, x)
    y = b.op("Add", gated, x) if one else gated
    folded = thinned(b.model(behind(b, y, kernel=(3, 3), pads=[1] * 4)))
    assert weights(folded) == [[16, 6, 3, 3], [8, 16, 1, 1], [16, 8, 1, 1], [5, 16, 3, 3]]


def test_a_gate_of_one_channel_for_all():
    b = Builder()
    x = b.op("Relu", dying(b, bias=-1.0))
    gate = b.op("Sigmoid", conv(b, start(b, name="z"), 6, 1, bias=False))
    folded = thinned(b.model(behind(b, b.op("Mul", x, gate))))
    assert [1, 6, 1, 1] in weights(folded)


POOLINGS = {
    "MaxPool": ("MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
    "AveragePool": ("AveragePool", {"kernel_shape": [2, 3], "pads": [0, 1, 1, 0]}),
    "AveragePool, inside": ("AveragePool", {"kernel_shape": [2, 2], "count_include_pad": 1}),
    "GlobalAveragePool": ("GlobalAveragePool", {}),
    "GlobalMaxPool": ("GlobalMaxPool", {}),
    "ReduceMean": ("ReduceMean", {"axes": [-1, 2]}),
    "Resize": ("Upsample", {"scales": [1.0, 1.0, 2.0, 2.0]}),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_through_every_pooling(name):
    op, how = POOLINGS[name]
    b = Builder(7)
    y = behind(b, b.op(op, b.op("Sigmoid", dying(b)), **how), bias=False)
    thinned(b.model(y), truth_runs=op != "Upsample")


def test_an_average_that_counts_padding_keeps_zeros():
    b = Builder()
    how = {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}
    x = b.op("AveragePool", b.op("Relu", dying(b, bias=-1.0)), **how)
    thinned(b.model(behind(b, b.op("Tanh", x))))


def test_upsampling_by_an_input():
    b = Builder()
    scales = b.constant([1.0, 1.0, 2.0, 3.0], elem_type=TensorProto.FLOAT)
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    x = b.op("Resize", b.op("Tanh", dying(b)), "", scales, **how)
    thinned(b.model(behind(b, x)))


@pytest.mark.parametrize("way", ["Flatten", "Squeeze", "ReduceMean"])
def test_a_classifier(way):
    b = Builder(17)
    x = b.op("Relu", dying(b))
    if way == "ReduceMean":
        x = b.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    else:
        axes = [b.constant([2, -1])] if way == "Squeeze" else []
        x = b.op(way, b.op("GlobalAveragePool", x), *axes)
    folded = thinned(b.model(b.op("Gemm", x, b.random(C, 5), b.random(5))))
    assert weights(folded, "Gemm") == [[LEFT, 5]]


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("shape", [("n", 6), ("n", "t", 6), ("n", 2, "t", 6)])
def test_channels_last(shape, biases):
    b = Builder()
    x = b.op("MatMul", b.input(*shape), b.constant(matrix(b, 6, C, DEAD)))
    x = b.op("Add", x, b.random(C)) if biases[0] else x
    x = b.op("MatMul", gelu(b, x), b.random(C, 5))
    x = b.op("Add", x, b.random(1, 5)) if biases[1] else x
    folded = thinned(b.model(b.op("Tanh", x)), {"n": 2, "t": 3}, {"n": 1, "t": 4})
    if len(shape) > 2:
        assert weights(folded, "MatMul")[0] == [6, LEFT]
        assert weights(folded, "MatMul")[-1] == [LEFT, 5]


@pytest.mark.parametrize("bias", ["none", "number", "vector", "row"])
@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(bias, turned):
    b = Builder()
    x = b.input(4, 6)
    for inputs, outputs, dead in ((6, C, DEAD), (C, 5, ())):
        weight = matrix(b, inputs, outputs, dead)
        weight = b.constant(weight.T if turned else weight)
        shapes = {"number": (), "vector": (outputs,), "row": (1, outputs)}
        extra = [b.random(*shapes[bias])] if bias != "none" else []
        x = b.op("Tanh", b.op("Gemm", x, weight, *extra, transB=turned))
    thinned(b.model(x), {})


def test_transposed_convolutions():
    """As a reader of zeros, and as the layer whose filters are dead."""
    b = Builder()
    weight = b.values(6, C, 2, 2)
    weight[:, list(DEAD)] = 0
    how = {"strides": [2, 2]}
    x = b.op("ConvTranspose", start(b), b.constant(weight), b.constant(-1 - b.rng.random(C)), **how)
    x = b.op("ConvTranspose", b.op("Relu", x), b.random(C, 5, 3, 3), b.random(5), pads=[1] * 4)
    folded = thinned(b.model(b.op("Tanh", x)))
    assert weights(folded, "ConvTranspose") == [[6, LEFT, 2, 2], [LEFT, 5, 3, 3]]
