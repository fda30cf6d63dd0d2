"""Random small networks with dead filters compute the same with fewer channels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.idle import conv, folds

SIZES = ({"n": 1, "h": 13, "w": 12}, {"n": 2, "h": 12, "w": 15})
BENT = ("Relu", "Relu", "Tanh", "Sigmoid", "HardSwish", "Softplus", "LeakyRelu")


def some(rng: np.random.Generator, count: int) -> list[int]:
    """Channels, mostly many of them; of a sum's two sides often the same."""
    share = rng.choice([0.0, 0.3, 0.6, 0.9, 1.0])
    return list(range(int(share * count)))


def layer(b: Builder, x: str, inputs: int, outputs: int, rng: np.random.Generator) -> str:
    size = int(rng.choice([1, 1, 3]))
    pads = [int(size == 3 and rng.random() < 0.6)] * 4
    unread = some(rng, inputs) if rng.random() < 0.3 else []
    bias = rng.choice([-1.0, 1.0, 0.0])
    dead = some(rng, outputs)
    how = {
        "dead": dead,
        "unread": unread,
        "bias": float(bias) if bias else bool(rng.random() < 0.5),
    }
    return conv(b, x, inputs, outputs, (size, size), pads=pads, **how)


def pointwise(b: Builder, x: str, inputs: int, outputs: int, rng: np.random.Generator) -> str:
    return conv(b, x, inputs, outputs, dead=some(rng, outputs), bias=-1.0)


def random_network(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    b = Builder(int(rng.choice([14, 17, 19])), seed=seed)
    count = int(rng.choice([32, 40, 64]))
    x = layer(b, b.input("n", 3, "h", "w"), 3, count, rng)
    outputs = []
    for _ in range(int(rng.integers(2, 7))):
        x = b.op(str(rng.choice(BENT)), x)
        kind = rng.choice(["layer", "sum", "concat", "gate", "depthwise", "norm", "pool", "exit"])
        if kind == "layer":
            outputs_here = int(rng.choice([16, 32, 48]))
            x, count = layer(b, x, count, outputs_here, rng), outputs_here
        elif kind == "sum":
            x = b.op("Add", x, pointwise(b, b.op("Relu", x), count, count, rng))
        elif kind == "concat":
            parts = [x, b.op("Tanh", pointwise(b, x, count, 32, rng))]
            x, count = b.op("Concat", *parts[:: int(rng.choice([-1, 1]))], axis=1), count + 32
        elif kind == "gate":
            inner = b.op("Relu", conv(b, b.op("GlobalAveragePool", x), count, 8))
            x = b.op("Mul", x, b.op("Sigmoid", conv(b, inner, 8, count)))
        elif kind == "depthwise":
            pads = [int(rng.random() < 0.6)] * 4
            x = conv(b, x, count, count, (3, 3), dead=some(rng, count), group=count, pads=pads)
        elif kind == "norm":
            x = b.batch_norm(x, count)
        elif kind == "pool":
            pads = [int(rng.random() < 0.5)] * 4
            x = b.op(str(rng.choice(["MaxPool", "AveragePool"])), x, kernel_shape=[2, 2], pads=pads)
        else:
            outputs.append(layer(b, x, count, 4, rng))
    x = b.op(str(rng.choice(BENT)), x)
    return b.model(conv(b, x, count, 5, unread=some(rng, count)), *outputs)


@pytest.mark.slow
def test_random_networks():
    found = [len(folds(optimized(random_network(seed), *SIZES))) for seed in range(20)]
    assert sum(found) > 15


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(100, 700, 50))
def test_many_random_networks(start):
    for seed in range(start, start + 50):
        optimized(random_network(seed), *SIZES)
