"""Scales by what quantization is expected to cost, against quantization itself."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfuse.equalization.balance import Activation, Weight, balanced

C, OUT = 12, 20


def case(seed, uneven=3.0):
    """x and W of a layer y = W x, the channels of x of uneven sizes."""
    rng = np.random.default_rng(seed)
    sizes = 2.0 ** rng.uniform(-uneven, uneven, C)
    x = np.abs(rng.standard_normal((4000, C))) * sizes
    weight = rng.standard_normal((OUT, C)) / sizes * 2.0 ** rng.uniform(-uneven, uneven, C)
    return x, weight


def scales_of(x, weight, steps=127):
    groups = np.arange(1, C + 1)
    power = np.mean(np.square(x @ weight.T), axis=0).sum()
    tensor = Activation(
        groups=groups,
        low=np.maximum(-x.min(axis=0), 0),
        high=np.maximum(x.max(axis=0), 0),
        importance=np.square(weight).sum(axis=0) / power,
    )
    layer = Weight(
        groups=groups,
        peaks=np.abs(weight)[None],
        power=np.square(x).mean(axis=0),
        importance=np.full(OUT, 1 / power),
    )
    return balanced(C + 1, [tensor], [layer], weight_steps=steps)[1:]


def noise(x, weight, steps=127):
    """The mean square error of y, x with one step and W with one for each row."""
    step = (x.max() - min(x.min(), 0)) / 255
    rows = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-30) / steps
    rounded = np.round(x / step) * step, np.round(weight / rows) * rows
    return np.mean(np.square(rounded[0] @ rounded[1].T - x @ weight.T))


@pytest.mark.parametrize("seed", range(6))
def test_there_is_less_noise(seed):
    x, weight = case(seed)
    scales = scales_of(x, weight)
    assert noise(x * scales, weight / scales) < 0.5 * noise(x, weight)


@pytest.mark.parametrize("seed", range(6))
def test_other_scales_make_no_less(seed):
    """Ratios of ranges, as cross-layer equalization takes them, and equal activations."""
    x, weight = case(seed)
    scales = scales_of(x, weight)
    found = noise(x * scales, weight / scales)
    ranges, columns = x.max(axis=0), np.abs(weight).max(axis=0)
    for other in (np.sqrt(columns / ranges), 1 / ranges, columns):
        assert found < 1.3 * noise(x * other, weight / other)


def test_even_channels_stay_nearly_so():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4000, C)), rng.standard_normal((OUT, C))
    scales = scales_of(x, weight)
    assert noise(x * scales, weight / scales) < 1.1 * noise(x, weight)
    assert scales.max() / scales.min() < 3


def test_group_0_keeps_its_scale():
    x, weight = case(0)
    groups = np.zeros(C, np.int64)
    tensor = Activation(groups, np.zeros(C), x.max(axis=0), np.ones(C))
    layer = Weight(groups, np.abs(weight)[None], np.ones(C), np.ones(OUT))
    assert np.array_equal(balanced(1, [tensor], [layer], weight_steps=127), [1.0])


def test_channels_of_one_group_have_one_scale():
    x, weight = case(1)
    groups = np.array([1, 1, *range(2, C)])
    tensor = Activation(groups, np.zeros(C), x.max(axis=0), np.ones(C))
    layer = Weight(groups, np.abs(weight)[None], np.square(x).mean(axis=0), np.ones(OUT))
    scales = balanced(C, [tensor], [layer], weight_steps=127)
    assert scales.shape == (C,)
    assert len(set(scales[1:])) == C - 1


def test_dead_channels_and_columns():
    x, weight = case(2)
    x[:, :3] = 0
    weight[:, 5:7] = 0
    weight[4] = 0
    scales = scales_of(x, weight)
    assert np.all(np.isfinite(scales))
    assert noise(x * scales, weight / scales) < noise(x, weight)


def test_nothing_to_quantize():
    assert np.array_equal(balanced(3, [], [], weight_steps=127), np.ones(3))


@pytest.mark.parametrize("parts", [1, 3, 6])
def test_slopes_are_those_of_the_cost(parts):
    """The scales found for one layer in groups are near the best of random ones nearby."""
    rng = np.random.default_rng(parts)
    x = np.abs(rng.standard_normal((2000, 6))) * 2.0 ** rng.uniform(-3, 3, 6)
    peaks = np.abs(rng.standard_normal((parts, 4, 6 // parts))) + 0.1
    groups, power = np.arange(1, 7), np.square(x).mean(axis=0)
    importance = np.square(peaks).sum(axis=1).reshape(-1)
    tensor = Activation(groups, np.zeros(6), x.max(axis=0), importance)
    layer = Weight(groups, peaks, power, np.ones(4 * parts))

    def cost(scales):
        rounding = (scales * x.max(axis=0)).max() ** 2 / 255**2 * np.sum(importance / scales**2)
        rows = (peaks / scales.reshape(parts, 1, -1)).max(axis=2) ** 2 / 127**2
        held = (scales**2 * power).reshape(parts, -1).sum(axis=1)
        return rounding + 10 * np.sum(rows.sum(axis=1) * held)

    found = balanced(7, [tensor], [layer], weight_steps=127)[1:]
    nearby = [cost(found * np.exp(0.5 * rng.standard_normal(6))) for _ in range(300)]
    assert cost(found) < 1.15 * min(nearby)
    assert cost(found) < cost(np.ones(6))
