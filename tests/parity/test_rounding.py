"""Constants moved by roundings, and what that explains."""

import ml_dtypes
import numpy as np
import pytest

from onnxfuse.parity.rounding import move, roundoff
from onnxfuse.parity.spread import Spread, excess, flips, gap

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (np.float64, 2.0**-53),
        (np.float32, 2.0**-24),
        (np.float16, 2.0**-11),
        (ml_dtypes.bfloat16, 2.0**-8),
    ],
)
def test_one_roundoff_is_the_largest_error_of_rounding(dtype, unit):
    assert roundoff(np.dtype(dtype).name) == unit
    exact = 1 + RNG.random(1000)
    if dtype is not np.float64:
        error = np.abs(exact.astype(dtype).astype(np.float64) - exact) / exact
        assert unit / 2 < error.max() <= unit


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_rounded_numbers_move_and_exact_ones_do_not(dtype):
    exact = np.array([0, 1, -2, 0.5, 6, 3, 0.75], dtype)
    np.testing.assert_array_equal(move(exact, "c", 1, 0.1), exact.astype(np.float64))
    rounded = (1 / np.arange(3, 99, 2)).astype(dtype)
    ratios = move(rounded, "c", 1, 0.1) / rounded.astype(np.float64)
    moved = ~np.isclose(ratios, 1)
    assert moved.mean() > 0.75  # a short mantissa ends in zeros by chance now and then
    assert set(np.round(ratios[moved], 6)) == {0.9, 1.1}


def test_signs_differ_between_draws_and_names_and_repeat():
    value = RNG.standard_normal(64).astype(np.float32)
    one = move(value, "a", 1, 0.1)
    np.testing.assert_array_equal(one, move(value, "a", 1, 0.1))
    assert (one != move(value, "a", 2, 0.1)).any()
    assert (one != move(value, "b", 1, 0.1)).any()


def test_integers_do_not_move():
    value = np.arange(5)
    assert move(value, "i", 1, 0.1) is value


def test_spread_is_the_root_mean_square_of_each_channel():
    x = RNG.standard_normal((2, 3, 4, 5))
    found = Spread.of(x)
    assert found.whole == pytest.approx(np.sqrt((x**2).mean()))
    assert found.slices.keys() == {1, 3}
    for channel in range(3):
        assert found.slices[1][channel] == pytest.approx(np.sqrt((x[:, channel] ** 2).mean()))
    both = Spread.joint([found, Spread.of(np.zeros_like(x))])
    assert both.whole == pytest.approx(found.whole / np.sqrt(2))
    larger = Spread.largest([found, Spread.of(np.zeros_like(x)), Spread.of(2 * x)])
    assert larger.whole == pytest.approx(2 * found.whole)
    np.testing.assert_allclose(larger.slices[1], 2 * found.slices[1])


def test_a_spread_of_huge_numbers_does_not_overflow():
    huge = Spread.of(np.full((2, 2), 1e300))
    assert huge.whole == Spread.joint([huge, huge]).whole == pytest.approx(1e300)
    assert Spread.of(np.array([[np.inf, 1.0]])).whole == np.inf


def test_excess_names_the_channel_that_stands_out():
    error = np.zeros((1, 8, 5, 5))
    error[:, 3] = 1e-3
    noise = Spread.of(np.full(error.shape, 1e-5))
    ones = Spread.of(np.ones(error.shape))
    found = excess(Spread.of(error), noise, ones, 0.0)
    assert found.channel == 3
    assert found.ratio == pytest.approx(50, rel=1e-3)
    assert excess(noise, noise, ones, 0.0).ratio == pytest.approx(0.5)
    zeros = Spread.of(np.zeros((2, 2)))
    assert excess(zeros, zeros, zeros, 0.0).ratio == 0


def test_a_huge_channel_does_not_hide_the_others():
    noise, error = np.full((1, 8, 5, 5), 1e-7), np.zeros((1, 8, 5, 5))
    noise[:, 0], error[:, 3] = 1e-1, 1e-5
    found = excess(Spread.of(error), Spread.of(noise), Spread.of(noise * 1e6), 2.0**-23)
    assert found.channel == 3
    assert found.ratio > 10


def test_gap_of_what_is_not_finite():
    a = np.array([np.nan, np.inf, -np.inf, np.nan, np.inf, 1.0])
    b = np.array([np.nan, np.inf, np.inf, 1.0, 1.0, 3.0])
    np.testing.assert_array_equal(gap(a, b), [0, 0, np.inf, np.inf, np.inf, -2])


def test_elements_may_flip_where_draws_flip():
    different, moved = np.zeros(10_000, bool), np.zeros(10_000, bool)
    different[0] = True
    assert flips(different, moved, computed=False).ratio == np.inf
    assert flips(different, moved, computed=True).ratio <= 1
    different[:5] = True
    assert flips(different, moved, computed=True).ratio > 1
    moved[:5] = True
    assert flips(different, moved, computed=False).ratio == 0
    different[5:500] = True
    assert flips(different, moved, computed=True).ratio > 1
