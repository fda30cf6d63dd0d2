"""Random ways for scales and shifts, forward and backward, through whatever they may pass."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.test_moving import LINES, SCALES, C

SIZES = ({"n": 1, "h": 19, "w": 17}, {"n": 2, "h": 16, "w": 21})
ENDS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean")
PASSED = {name: op for name, op in {**SCALES, **LINES}.items() if name not in ENDS}
UNARY = [name for name in PASSED if name.split()[0] not in ("Mul", "Div")]


def line(b: Builder, x: str, channels: int, rng: np.random.Generator) -> str:
    """A scale, a shift or both; mostly by positive numbers."""
    make = b.positive if rng.random() < 0.8 else b.random
    kind = str(rng.choice(["Mul", "Mul", "Div", "BatchNormalization", "Add", "Sub"]))
    if kind == "BatchNormalization":
        rest = b.random(channels), b.random(channels), b.positive(channels)
        return b.op(kind, x, make(channels), *rest)
    shapes = [(1, channels, 1, 1), (channels, 1, 1), (1,), ()]
    return b.op(kind, x, make(*shapes[int(rng.integers(len(shapes)))]))


def random_way(seed: int) -> onnx.ModelProto:
    """One or two inputs, some nodes, and a layer at one end."""
    rng = np.random.default_rng(seed)
    b = Builder(int(rng.choice([13, 17, 18])), seed=seed)
    backward = rng.random() < 0.4
    if backward:
        x = b.conv(b.op("Sigmoid", b.input("n", 3, "h", "w")), 3, C, pads=[1] * 4)
    elif rng.random() < 0.3:
        halves = [b.op("Sigmoid", b.input("n", C // 2, "h", "w", name=name)) for name in "xz"]
        halves[int(rng.integers(2))] = line(b, halves[1], C // 2, rng)
        x = b.op("Concat", *halves, axis=1)
    else:
        x = line(b, b.op("Sigmoid", b.input("n", C, "h", "w")), C, rng)
    for _ in range(int(rng.integers(1, 4))):
        is_first = not any(node.op_type in ("MaxPool", "AveragePool", "Resize") for node in b.nodes)
        names = [*PASSED, "line"] if is_first and len(b.inputs) == 1 else [*UNARY, "line"]
        name = str(rng.choice(names))
        x = line(b, x, C, rng) if name == "line" else PASSED[name](b, x)
    if backward:
        return b.model(b.op("Tanh", line(b, x, C, rng)))
    if rng.random() < 0.3:
        flat = b.op("Flatten", LINES[str(rng.choice(ENDS))](b, x))
        return b.model(b.op("Gemm", flat, b.random(C, 3), b.random(3)))
    return b.model(b.conv(x, C, 3, (1, 1) if rng.random() < 0.6 else (3, 3)))


@pytest.mark.parametrize("start", range(0, 100, 20))
def test_random_ways_compute_the_same(start):
    for seed in range(start, start + 20):
        optimized(random_way(seed), *SIZES)


@pytest.mark.slow
def test_most_of_them_move():
    moves = [
        sum(
            "scale and shift" in fold.formula
            for fold in optimized(random_way(seed), *SIZES).report.folds
        )
        for seed in range(40)
    ]
    assert sum(map(bool, moves)) > 12
