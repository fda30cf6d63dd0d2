"""What is between two channels of a layer, against loops over the definition of the operators."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxfuse.equalization.layers import layers
from onnxfuse.graph import Graph
from onnxfuse.reference import evaluate
from onnxfuse.shapes import default_opset, infer_types
from tests.lift.building import Builder


def graph_of(model):
    return Graph(model.graph, default_opset(model), model.ir_version, types=infer_types(model))


def conv(group):
    b = Builder()
    return b.model(b.conv(b.input(1, 6, 5, 5), 6, 12, (3, 2), group=group))


def transposed(group):
    b = Builder()
    weight = b.random(6, 12 // group, 3, 2)
    return b.model(b.op("ConvTranspose", b.input(1, 6, 5, 5), weight, b.random(12), group=group))


def gemm(turned):
    b = Builder()
    weight = b.random(*((12, 6) if turned else (6, 12)))
    return b.model(b.op("Gemm", b.input(3, 6), weight, b.random(12), transB=int(turned)))


def matmul(left):
    b = Builder()
    if left:
        return b.model(b.op("MatMul", b.random(12, 6), b.input(6, 3)))
    return b.model(b.op("MatMul", b.input(2, 3, 6), b.random(2, 6, 12)))


MODELS = {
    **{f"Conv in {group} groups": lambda g=group: conv(g) for group in (1, 2, 3, 6)},
    **{f"ConvTranspose in {group} groups": lambda g=group: transposed(g) for group in (1, 2, 6)},
    **{f"Gemm {turned}": lambda t=turned: gemm(t) for turned in (False, True)},
    **{f"MatMul {left}": lambda s=left: matmul(s) for left in (False, True)},
}


def response(model, layer, channel, graph):
    """What the layer makes of one channel alone, without its bias."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    made = []
    for value in (1.0, 0.0):
        x = np.zeros(shape)
        x[(*(slice(None),) * layer.axes[0], channel)] = value
        node = model.graph.node[0]
        held = {n: np.float64(graph.constant(n)) for n in node.input if graph.is_constant(n)}
        made.append(evaluate([node], {**held, layer.data: x}, graph.opset)[layer.output])
    return made[0] - made[1]


@pytest.mark.parametrize("name", MODELS)
def test_channels_between_which_there_is_a_weight(name):
    """An output channel hears of an input channel exactly where there is something between them."""
    model = MODELS[name]()
    graph = graph_of(model)
    (layer,) = layers(graph).values()
    weight = np.float64(graph.constant(layer.weight))
    peaks, power = layer.peaks(weight), layer.power(weight)
    into, out = (count // layer.groups for count in layer.channels)
    assert peaks.shape == power.shape == (layer.groups, out, into)
    for channel in range(layer.channels[0]):
        heard = response(model, layer, channel, graph)
        others = tuple(a for a in range(heard.ndim) if a != layer.axes[1])
        listening = np.any(heard, axis=others)
        group = channel // into
        assert set(np.flatnonzero(listening)) == set(range(group * out, (group + 1) * out))
    assert np.isclose(power.sum(), np.square(weight).sum())
    assert np.isclose(peaks.max(), np.abs(weight).max())


@pytest.mark.parametrize("name", MODELS)
def test_peaks_move_with_single_weights(name):
    """A weight made large shows between its two channels and nowhere else."""
    model = MODELS[name]()
    graph = graph_of(model)
    (layer,) = layers(graph).values()
    weight = np.float64(graph.constant(layer.weight))
    rng = np.random.default_rng(0)
    places = [tuple(rng.integers(0, weight.shape)) for _ in range(8)]
    for place in places:
        changed = weight.copy()
        changed[place] = 100.0
        (where,) = np.argwhere(layer.peaks(changed) == 100.0)
        ingoing, outgoing = (place[axis] for axis in layer.weight_axes)
        into, out = (count // layer.groups for count in layer.channels)
        if name.startswith("ConvTranspose"):
            expected = (ingoing // into, outgoing, ingoing % into)
        else:
            expected = (outgoing // out, outgoing % out, ingoing)
        assert tuple(where) == expected


@pytest.mark.parametrize("name", MODELS)
def test_scaled_constants(name):
    """s (W x + b) = (s W / r) (r x) + s b, by the definition of the operator."""
    model = MODELS[name]()
    graph = graph_of(model)
    (layer,) = layers(graph).values()
    rng = np.random.default_rng(1)
    before, behind = (rng.uniform(0.5, 3, count) for count in layer.channels)
    node = model.graph.node[0]
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = rng.standard_normal(shape)
    held = {n: np.float64(graph.constant(n)) for n in node.input if graph.is_constant(n)}

    def along(scale, axis, rank):
        return scale.reshape([-1 if a == axis else 1 for a in range(rank)])

    plain = evaluate([node], {**held, layer.data: x}, graph.opset)[layer.output]
    scaled = {**held, **layer.scaled(graph, before, behind)}
    scaled[layer.data] = x * along(before, layer.axes[0], x.ndim)
    found = evaluate([node], scaled, graph.opset)[layer.output]
    np.testing.assert_allclose(found, plain * along(behind, layer.axes[1], plain.ndim), atol=1e-12)


REFUSED = {
    "a weight that is computed": lambda b, x: b.op(
        "Conv", x, b.op("Exp", b.input(4, 6, 3, 3, name="w"))
    ),
    "a bias that is computed": lambda b, x: b.op(
        "Conv", x, b.random(4, 6, 3, 3), b.input(4, name="w")
    ),
    "a transposed input of a Gemm": lambda b, x: b.op(
        "Gemm", b.op("Flatten", b.op("Transpose", x, perm=[1, 0, 2, 3])), b.random(6, 4), transA=1
    ),
    "a bias per row": lambda b, x: b.op(
        "Gemm", b.op("Flatten", b.op("GlobalAveragePool", x)), b.random(6, 4), b.random(1, 1)
    ),
    "a vector": lambda b, x: b.op("MatMul", x, b.random(5)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_is_no_layer(name):
    b = Builder()
    model = b.model(REFUSED[name](b, b.input(1, 6, 5, 5)))
    assert not layers(graph_of(model))


def test_every_pair_of_channels_is_counted_once():
    for group, kernel in itertools.product((1, 2, 6), (1, 3)):
        b = Builder()
        model = b.model(b.conv(b.input(1, 6, 5, 5), 6, 6, (kernel, 1), group=group))
        graph = graph_of(model)
        (layer,) = layers(graph).values()
        ones = np.ones(np.shape(graph.constant(layer.weight)))
        assert np.all(layer.power(ones) == kernel)
