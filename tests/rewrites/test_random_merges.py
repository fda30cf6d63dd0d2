"""Random convolutions over one tensor, with whatever lies behind them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.cut import K, silu, start
from tests.rewrites.test_random_splits import elementwise

SIZES = ({"n": 1, "h": 9, "w": 10}, {"n": 2, "h": 11, "w": 8})


def random_model(seed: int) -> onnx.ModelProto:
    """Heads of one or two windows, most of them followed by the same nodes."""
    rng = np.random.default_rng(seed)
    b = Builder(int(rng.choice([9, 11, 13, 18])), seed=seed)
    x = start(b)
    windows = [_window(rng) for _ in range(int(rng.integers(1, 3)))]
    behind = [str(rng.choice(KINDS)) for _ in range(int(rng.integers(4)))]
    outputs = []
    for _ in range(int(rng.integers(2, 6))):
        count = int(rng.choice([1, 2, 3, 4, 6, 9, 10, 12, 16, 20]))
        kernel, settings = windows[int(rng.integers(len(windows)))]
        y = b.conv(x, K, count, kernel, bias=bool(rng.random() < 0.7), **settings)
        for kind in behind:
            if rng.random() < 0.1:
                outputs.append(b.op("Tanh", y))
            y = BEHIND[kind](b, y, count, rng)
        if rng.random() < 0.3:
            y = elementwise(b, y, count, rng)
        outputs.append(y if rng.random() < 0.3 else b.op("Flatten", y))
    if rng.random() < 0.3:
        outputs.append(b.op("Concat", *outputs[:1], *outputs[:1], axis=1))
    return b.model(*outputs)


def _window(rng: np.random.Generator) -> tuple[tuple[int, int], dict[str, object]]:
    settings: dict[str, object] = {}
    if rng.random() < 0.5:
        settings["strides"] = [int(n) for n in rng.integers(1, 3, 2)]
    if rng.random() < 0.3:
        settings["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    elif rng.random() < 0.7:
        settings["pads"] = [int(n) for n in rng.integers(0, 3, 4)]
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    return kernel, settings


def _depthwise(b: Builder, y: str, count: int, rng: np.random.Generator) -> str:
    settings = {"pads": [1] * 4} if rng.random() < 0.8 else {"auto_pad": "SAME_UPPER"}
    return b.conv(y, count, count, group=count, bias=bool(rng.random() < 0.5), **settings)


BEHIND = {
    "Relu": lambda b, y, n, rng: b.op("Relu", y),
    "silu": lambda b, y, n, rng: silu(b, y),
    "LeakyRelu": lambda b, y, n, rng: b.op("LeakyRelu", y, alpha=float(rng.choice([0.1, 0.2]))),
    "PRelu": lambda b, y, n, rng: b.op("PRelu", y, b.random(n, 1, 1)),
    "Max": lambda b, y, n, rng: b.op("Max", y, b.random(*[(n, 1, 1), (1,)][int(rng.integers(2))])),
    "depthwise": _depthwise,
}
KINDS = tuple(BEHIND)


@pytest.mark.parametrize("first", [0, 20])
def test_random_heads_compute_the_same(first):
    made = 0
    for seed in range(first, first + 20):
        report = optimized(random_model(seed), *SIZES).report
        made += any(fold.step == "merges" for fold in report.folds)
    assert made > 5


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(100, 1000, 100))
def test_more_of_them(first):
    for seed in range(first, first + 100):
        optimized(random_model(seed), *SIZES)
