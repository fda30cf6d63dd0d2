"""Weights that stand out become layers of their own, where that is exact and pays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from onnxfuse.equalization.equalize import SPLIT
from onnxfuse.equalization.layers import layers
from onnxfuse.equalization.outliers import diagonal
from tests.equalization.equalizing import equalized, samples, weights
from tests.equalization.test_layers import graph_of
from tests.lift.building import Builder
from tests.lift.comparing import run

C = 24


def stands_out(b, x, kernel=(3, 3), *, tap=None, group=1, size=3.0, outputs=C, **settings):
    """A Conv, as one with an identity branch is once it is folded."""
    weight = 0.05 * b.rng.standard_normal((outputs, C // group, *kernel))
    rows = np.arange(outputs)
    place = tap or tuple(k // 2 for k in kernel)
    weight[(rows, rows % (C // group), *place)] += size
    settings = {"pads": [k // 2 for k in kernel] * 2, **settings}
    if settings["pads"] is None:
        del settings["pads"]
    return b.op("Conv", x, b.constant(weight), b.random(outputs), group=group, **settings)


def model_of(*shape, opset=17, elem_type=TensorProto.FLOAT, **settings):
    b = Builder(opset, elem_type=elem_type)
    x = b.input(*(shape or ("n", C, 9, 8)))
    return b.model(b.op("Relu", stands_out(b, x, **settings)))


def is_split(result):
    return any(made.change == SPLIT for made in result.nodes)


APART = {
    "in two dimensions": {},
    "with strides": {"strides": [2, 2]},
    "with strides over an odd and an even size": {"strides": [2, 3]},
    "with dilations": {"dilations": [2, 2], "pads": [2] * 4},
    "in groups": {"group": 3},
    "of five taps": {"kernel": (5, 5)},
    "of an even kernel": {"kernel": (2, 4), "tap": (0, 2), "pads": [0, 2, 1, 1]},
}


@pytest.mark.parametrize("name", APART)
def test_is_computed_apart(name):
    model = model_of(**APART[name])
    result = equalized(model, n=2)
    assert is_split(result)
    operators = [node.op_type for node in result.model.graph.node]
    assert operators == ["Conv", "Conv", "Add", "Relu"]
    assert all(made.certificate.error <= made.certificate.allowed for made in result.nodes)


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank):
    assert is_split(equalized(model_of("n", C, *(5,) * rank, kernel=(3,) * rank), n=2))


def test_float16():
    assert is_split(equalized(model_of(elem_type=TensorProto.FLOAT16), exact=0.01, n=2))


def test_sizes_that_are_not_known():
    assert is_split(equalized(model_of("n", C, "h", "w"), n=2, h=7, w=10))


def test_what_is_left_has_zeros_there():
    held = weights(equalized(model_of(), n=2).model)
    rest = next(value for name, value in held.items() if name.endswith("/rest"))
    alone = next(value for name, value in held.items() if name.endswith("/diagonal"))
    rows = np.arange(C)
    assert not np.any(rest[rows, rows, 1, 1])
    assert np.all(np.abs(alone) > 20 * np.median(np.abs(rest)))


WHOLE = {
    "nothing stands out": {"size": 0.05},
    "few weights beside it": {"kernel": (1, 1)},
    "another tap": {"tap": (0, 1)},
    "too little padding": {"pads": [0] * 4, "tap": (0, 0)},
    "padding on one side": {"pads": [2, 2, 0, 0], "tap": (1, 1)},
    "too much padding": {"pads": [1, 1, 2, 2], "tap": (1, 1)},
    "padding by rule": {"pads": None, "auto_pad": "SAME_UPPER"},
    "dilation that skips the pixel": {"dilations": [2, 2], "pads": [1, 1, 3, 3], "tap": (0, 0)},
    "a depthwise layer": {"group": C},
    "more channels out than in": {"outputs": 2 * C},
}


@pytest.mark.parametrize("name", WHOLE)
def test_stays_whole(name):
    assert not is_split(equalized(model_of(**WHOLE[name]), n=2))


@pytest.mark.parametrize("op_type", ["ConvTranspose", "Gemm", "MatMul"])
def test_other_layers_stay_whole(op_type):
    b = Builder()
    count = 300
    weight = 0.02 * b.rng.standard_normal((count, count)) + 3 * np.eye(count)
    if op_type == "ConvTranspose":
        x = b.input("n", count, 3, 3)
        weight = weight.reshape(count, count, 1, 1)
    else:
        x = b.input("n", count)
    held = b.constant(weight), *([] if op_type == "MatMul" else [b.random(count)])
    assert not is_split(equalized(b.model(b.op("Relu", b.op(op_type, x, *held))), n=2))


def test_negative_padding_stays_whole():
    model = model_of(1, C, 9, 8, pads=[3, 3, -1, -1])
    graph = graph_of(model)
    (layer,) = layers(graph).values()
    assert diagonal(graph, layer, np.float64(graph.constant(layer.weight))) is None


def test_a_weight_that_two_layers_read_stays_whole():
    b = Builder()
    weight = b.constant(np.eye(C).reshape(C, C, 1, 1) + 0.01 * b.values(C, C, 1, 1))
    x = b.op("Conv", b.input("n", C, 9, 8), weight)
    assert not is_split(equalized(b.model(b.op("Conv", b.op("Relu", x), weight)), n=2))


def rounded(weight):
    """A weight with 127 steps on either side in each output channel."""
    step = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) / 127
    return (np.round(weight / np.where(step > 0, step, 1)) * step).astype(np.float32)


def test_rounded_it_is_far_nearer():
    """By more than 10 dB, with every weight rounded to 8 bits per channel."""
    model = model_of()
    noise = []
    for made in (model, equalized(model, n=2).model):
        feeds = samples(made, 1, n=2)[0]
        exact = run(made, feeds)[0]
        for tensor in made.graph.initializer:
            if len(tensor.dims) == 4:
                value = np.frombuffer(tensor.raw_data, np.float32).reshape(tensor.dims)
                tensor.raw_data = rounded(value).tobytes()
        noise.append(np.sum(np.square(run(made, feeds)[0] - exact)))
    assert noise[1] < 0.1 * noise[0]
