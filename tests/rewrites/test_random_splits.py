"""Random convolutions whose channels are cut into parts, in whatever way they may be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.cut import SIZES, conv, part, silu, split, start

UNARY = ("Relu", "Tanh", "Sigmoid", "HardSigmoid", "LeakyRelu")


def elementwise(b: Builder, x: str, channels: int, rng: np.random.Generator) -> str:
    """What works on each channel by itself."""
    shape = [(channels, 1, 1), (1, channels, 1, 1), (1,), ()][int(rng.integers(4))]
    kind = str(rng.choice([*UNARY, "silu", "PRelu", "Max", "Add", "norm"]))
    if kind == "silu":
        return silu(b, x)
    if kind == "norm":
        return b.batch_norm(x, channels)
    return b.op(kind, x, *([] if kind in UNARY else [b.random(*shape)]))


def random_model(seed: int) -> onnx.ModelProto:
    """A Conv, some nodes, parts, and for each of them a way on."""
    rng = np.random.default_rng(seed)
    b = Builder(int(rng.choice([9, 11, 13, 18])), seed=seed)
    kernel, block = ((1, 1), 16) if rng.random() < 0.7 else ((3, 2), 64)
    sizes = [block * int(n) for n in rng.integers(1, 4, int(rng.integers(1, 4)))]
    sizes[0] -= 6 * bool(rng.random() < 0.1)
    total = sum(sizes)
    y = conv(b, start(b), total, kernel, bias=bool(rng.random() < 0.7), pads=[2, 1, 1, 1])
    for _ in range(int(rng.integers(4))):
        if rng.random() < 0.2:
            group = total // int(rng.choice([1, 2]))
            y = b.conv(y, total, total, (3, 3), group=group, pads=[1] * 4)
        y = elementwise(b, y, total, rng)
    ends = np.cumsum(sizes).tolist()
    if rng.random() < 0.5:
        parts = split(b, y, sizes)
    else:
        parts = [part(b, y, end - n, end) for n, end in zip(sizes, ends, strict=True)]
    if rng.random() < 0.1:
        parts[0] = b.op("Max", parts[0], part(b, y, 0, sizes[0]))
    return b.model(*_outputs(b, parts, sizes, rng))


def _outputs(b: Builder, parts: list[str], sizes: list[int], rng: np.random.Generator) -> list[str]:
    used = [i for i in range(len(parts)) if rng.random() < 0.8] or [0]
    first = b.op("Relu", b.conv(parts[used[0]], sizes[used[0]], 3, pads=[1] * 4))
    outputs = [first]
    for i in used[1:]:
        x = elementwise(b, parts[i], sizes[i], rng) if rng.random() < 0.5 else parts[i]
        outputs.append(b.conv(x, sizes[i], 3, (1, 1)) if rng.random() < 0.5 else x)
    joined = b.op("Concat", *(parts[i] for i in reversed(used)), first, axis=1)
    outputs.append(b.op("Relu", b.conv(joined, sum(sizes[i] for i in used) + 3, 4, (1, 1))))
    return list(dict.fromkeys(outputs))


@pytest.mark.parametrize("first", [0, 15])
def test_random_parts_compute_the_same(first):
    made = 0
    for seed in range(first, first + 15):
        report = optimized(random_model(seed), *SIZES).report
        made += any(fold.step == "splits" for fold in report.folds)
    assert made > 3


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(100, 1000, 100))
def test_more_of_them(first):
    for seed in range(first, first + 100):
        optimized(random_model(seed), *SIZES)
