"""What is expected of channels on other samples than those that were seen."""

from __future__ import annotations

import numpy as np

from onnxfuse.equalization import equalize
from onnxfuse.equalization.costs import Costs, Seen
from onnxfuse.equalization.lanes import channels
from onnxfuse.equalization.layers import layers
from onnxfuse.equalization.ranges import Range
from tests.equalization.equalizing import uneven, weights
from tests.equalization.test_layers import graph_of
from tests.lift.building import Builder

C = 8


def model():
    b = Builder()
    y = uneven(b, b.input("n", 3, 6, 6), 3, C)
    return b.model(b.conv(b.op("Relu", y), C, 4))


def logarithms(before, **given):
    """Those of the scales behind the first Conv, of each channel."""
    after = equalize(before, **given).model
    first = before.graph.node[0].input[1]
    old, new = (np.abs(weights(m)[first]).max(axis=(1, 2, 3)) for m in (before, after))
    return np.log(new / old)


def test_few_values_move_scales_in_part():
    """The same image n times has the same ranges: n 16 / (n 16 + 256) of what they ask for."""
    image = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
    net = model()
    counts = (1, 16, 256)
    found = [logarithms(net, samples=[{"x": image.repeat(n, axis=0)}]) for n in counts]
    whole = [logs * (1 + 256 / (16 * n)) for n, logs in zip(counts, found, strict=True)]
    assert np.ptp(found[-1]) > 1
    for logs in whole:
        np.testing.assert_allclose(logs, whole[-1], atol=1e-4)


def test_as_many_samples_as_images_are_the_same():
    images = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
    net = model()
    at_once = logarithms(net, samples=[{"x": images}])
    apart = logarithms(net, samples=[{"x": image[None]} for image in images])
    np.testing.assert_allclose(at_once, apart, atol=1e-4)


def test_channels_that_no_sample_reaches_are_not_taken_for_empty():
    """Six standard deviations above its mean, where what is given to a layer is uncorrelated."""
    b = Builder()
    x = b.op("Conv", b.input(64, 3, 6, 6), b.random(5, 3, 1, 1))
    weight, bias = b.values(2, 5, 2, 2), np.array([0.0, -50.0])
    y = b.op("Conv", x, b.constant(weight), b.constant(bias))
    z = b.op("Relu", y)
    graph = graph_of(b.model(b.op("Conv", z, b.random(4, 2, 1, 1))))
    found = layers(graph)
    groups = channels(graph, found)
    rng = np.random.default_rng(0)
    size = {x: 5, y: 2, z: 2, graph.outputs[0]: 4}
    held = {
        name: Range(-rng.random(n), rng.random(n), rng.random(n), -rng.random(n), 100)
        for name, n in size.items()
    }
    held[z] = Range(np.zeros(2), np.array([3.0, 0.0]), np.ones(2), np.ones(2), 100)
    seen = {}
    for index, layer in found.items():
        constant = np.float64(graph.constant(layer.weight))
        peaks = layer.peaks(constant)
        seen[index] = Seen(peaks, layer.power(constant), constant.size // peaks.size)
    costs = Costs(graph, found, groups, held, seen)
    (relu,) = (a for a in costs.activations if np.array_equal(a.groups, groups.groups[z]))
    single = np.float64(graph.constant(graph.nodes[1].input[1]))
    spread = np.sqrt([sum((w[c] ** 2).sum() * held[x].power[c] for c in range(5)) for w in single])
    np.testing.assert_allclose(relu.high, np.maximum(held[z].largest, held[y].mean + 6 * spread))
    assert not relu.low.any()
    np.testing.assert_allclose(costs.trust[1:], 100 / 356)
