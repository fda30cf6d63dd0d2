"""Folds gone wrong are caught and named, on every network of models/; right ones never are."""

from functools import cache

import numpy as np
import pytest
import torch
from onnx import numpy_helper

import onnxfuse
from models import ZOO, build
from models.exporting import export
from tests.lift.building import Builder, same
from tests.parity.breaking import (
    bias_off,
    folded_convs,
    initializer,
    tap_shifted,
    without_epsilon,
)

# Unfolded, these two have 15,000 and 11,000 nodes; the second has no BatchNormalization at all.
FORMS = {"dbb_resnet18": "dynamo", "ecbsr_m4c16": "dynamo"}
SMALL = {"ecbsr_m4c16": (1, 3, 24, 40)}
QUICK = ("three_branch",)
IN_CI = ("rep_detector",)  # of few layers, with two outputs


def marks(name):
    if name in QUICK:
        return ()
    return pytest.mark.slow if name in IN_CI else pytest.mark.nightly


NETWORKS = [pytest.param(name, marks=marks(name)) for name in ZOO]

pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def folded(name):
    """(training form, its folded form), at 64x64 where the network's own input is larger."""
    shape = ZOO[name].input_shape
    shape = SMALL.get(name, (*shape[:2], *(min(extent, 64) for extent in shape[2:])))
    form = FORMS.get(name, "script_unfolded")
    model = export(build(name), torch.zeros(shape), form, dynamic=False)
    return model, onnxfuse.optimize(model)


def some(found, count=2):
    """The first, the last and a few in between."""
    return [found[i] for i in sorted({int(i) for i in np.linspace(0, len(found) - 1, count)})]


def parts_at(model, broken, tensor, **sizes):
    result = onnxfuse.check(model, broken, sizes=sizes, bisect=True, threads=1)
    assert not result.agrees
    assert result.divergence is not None
    assert result.divergence.tensor == tensor
    return result.divergence


@pytest.mark.parametrize("name", NETWORKS)
def test_the_fold_itself_agrees(name):
    model, result = folded(name)
    found = onnxfuse.check(model, result.model, bisect=True, threads=1)
    assert found.agrees, found
    assert found.divergence is None
    assert max(meaning.error for meaning in found.meanings) < 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bias_off_in_one_channel_is_named(name):
    model, result = folded(name)
    for number, conv in enumerate(some(folded_convs(result))):
        broken = bias_off(result.model, conv, channel=37 * number + 5)
        found = parts_at(model, broken, conv.output[0])
        channels = numpy_helper.to_array(initializer(result.model, conv.input[2])).size
        assert found.channel == (37 * number + 5) % channels


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shifted_tap_is_named(name):
    model, result = folded(name)
    convs = folded_convs(result)
    wide = [c for c in convs if initializer(result.model, c.input[1]).dims[-1] > 1]
    for conv in some(wide):
        parts_at(model, tap_shifted(result.model, conv, channel=11), conv.output[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_epsilon_ignored_is_named(name):
    model, _ = folded(name)
    count = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    if not count:
        pytest.skip("the network has no BatchNormalization")
    for number in some(range(count)):
        other, node = without_epsilon(model, number)
        broken = onnxfuse.optimize(other).model
        found = onnxfuse.check(model, broken, bisect=True, threads=1)
        assert not found.agrees
        assert node in [name for name, _ in found.divergence.replaced]


def random_block(seed):
    """A small multi-branch network with weights and statistics of its own scale."""
    rng = np.random.default_rng(seed)
    b = Builder(seed=seed)
    channels = int(rng.integers(1, 9))
    scale = 10.0 ** rng.uniform(-2, 2)
    y = b.input("n", channels, "h", "w")
    for _ in range(int(rng.integers(1, 4))):
        kernel = (3, 3) if rng.random() < 0.5 else (1, 3)
        low, high = 0.1 * scale, scale
        weights = [
            b.constant(b.values(channels, channels, *k, low=low, high=high) / channels)
            for k in (kernel, (1, 1))
        ]
        wide = b.op("Conv", y, weights[0], pads=same(kernel))
        point = b.op("Conv", y, weights[1], b.random(channels))
        branches = [b.batch_norm(wide, channels), b.batch_norm(point, channels, epsilon=1e-3)]
        if rng.random() < 0.5:
            branches.append(b.batch_norm(y, channels))
        y = b.op("Sum", *branches)
        y = b.op(str(rng.choice(["Relu", "Sigmoid", "HardSwish", "Tanh"])), y)
    if rng.random() < 0.5:
        y = b.op("Flatten", b.op("GlobalAveragePool", y))
        y = b.op("Gemm", y, b.random(channels, 10), b.random(10))
    return b.model(y)


def never_fails(seeds):
    for seed in seeds:
        sizes = {"n": 1 + seed % 3, "h": 5 + seed % 8, "w": 4 + seed % 11}
        found = onnxfuse.check(random_block(seed), sizes=sizes, seed=seed, threads=1, bisect=True)
        assert found.agrees, (seed, found.divergence, [o for o in found.outputs if o.reason])


def test_right_folds_of_random_weights_agree():
    never_fails(range(6))


@pytest.mark.slow
def test_right_folds_of_more_random_weights_agree():
    never_fails(range(20, 40))


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_right_folds_of_a_thousand_random_weights_agree(start):
    never_fails(range(start, start + 250))


def test_a_broken_copy_of_random_weights_differs():
    for seed in range(8):
        model = random_block(seed)
        result = onnxfuse.optimize(model)
        for conv in folded_convs(result)[:1]:
            bias = numpy_helper.to_array(initializer(result.model, conv.input[2]))
            size = max(float(np.abs(bias).max()), 1.0)
            broken = bias_off(result.model, conv, channel=seed, by=1e-3 * size)
            parts_at(model, broken, conv.output[0], h=9, w=7)
