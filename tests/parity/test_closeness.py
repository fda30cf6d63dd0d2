"""The figures, from their definitions."""

import itertools
import math

import numpy as np
import pytest

from onnxfuse.parity.closeness import closeness
from onnxfuse.parity.result import ULP_BINS

RNG = np.random.default_rng(0)


def bin_of(distance):
    """The label whose range holds a distance."""
    for number, label in enumerate(ULP_BINS[:-1]):
        low, _, high = label.partition("-")
        if int(low) <= distance <= int(high or low):
            return number
    return len(ULP_BINS) - 1


def between(a, b, dtype):
    """How many steps of nextafter lead from a to b."""
    a, b, steps = dtype(min(a, b)), dtype(max(a, b)), 0
    while a != b:
        a, steps = np.nextafter(a, dtype(np.inf)), steps + 1
    return steps


def test_figures_of_two_random_arrays():
    a = RNG.standard_normal((3, 7)).astype(np.float32)
    b = (a + 1e-3 * RNG.standard_normal(a.shape)).astype(np.float32)
    x, y = a.astype(np.float64), b.astype(np.float64)
    found = closeness(a, b)
    assert found.max_abs == np.abs(x - y).max()
    assert found.max_rel == pytest.approx((np.abs(x - y) / np.abs(x)).max())
    error, size = math.sqrt(((x - y) ** 2).sum()), math.sqrt((x**2).sum())
    assert found.relative_l2 == pytest.approx(error / size)
    assert found.snr_db == pytest.approx(10 * math.log10((x**2).sum() / ((x - y) ** 2).sum()))
    cosine = (x * y).sum() / (size * math.sqrt((y**2).sum()))
    assert found.cosine == pytest.approx(cosine)
    assert found.top1 == np.mean([np.argmax(p) == np.argmax(q) for p, q in zip(a, b, strict=True)])
    near = [abs(p - q) <= 1e-5 + 1e-3 * abs(p) for p, q in zip(x.ravel(), y.ravel(), strict=True)]
    assert found.within == np.mean(near)
    assert sum(found.ulps) == a.size


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_units_in_the_last_place(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    values = [dtype(0), dtype(-0.0), tiny, -tiny, dtype(3) * tiny, dtype(1), dtype(-1)]
    one = dtype(1)
    for _ in range(20):
        one = np.nextafter(one, dtype(2))
        values.append(one)
    near = [pair for pair in itertools.combinations(values, 2) if abs(pair[0] - pair[1]) < 0.1]
    for a, b in near:
        counted = closeness(np.array([a]), np.array([b])).ulps
        assert counted.index(1) == bin_of(between(a, b, dtype)), (a, b)


def test_far_apart_numbers_and_numbers_beside_nan_are_in_the_last_bin():
    for a, b in ((1.0, -1.0), (0.0, np.inf), (np.nan, 1.0), (1.0, np.nan), (-np.inf, np.inf)):
        counted = closeness(np.array([a], np.float32), np.array([b], np.float32)).ulps
        assert counted[-1] == 1, (a, b)


def test_nan_equals_nan_and_infinity_itself():
    a = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    found = closeness(a, a.copy())
    assert (found.max_abs, found.relative_l2, found.within, found.ulps[0]) == (0, 0, 1, 4)
    assert found.snr_db is None
    other = np.array([np.nan, np.inf, np.inf, 1.0], np.float32)
    assert closeness(a, other).max_abs == np.inf
    assert closeness(a, other).within == 0.75


def test_zeros_have_no_direction():
    zeros = np.zeros((2, 3), np.float32)
    assert closeness(zeros, zeros).cosine is None
    assert closeness(zeros, zeros).relative_l2 == 0
    ones = np.ones((2, 3), np.float32)
    assert closeness(zeros, ones).relative_l2 == pytest.approx(math.sqrt(6))


def test_squares_neither_overflow_nor_vanish():
    for scale in (1e-30, 1e30):
        a = np.full(4, scale, np.float32)
        found = closeness(a, a * np.float32(1.5))
        assert found.relative_l2 == pytest.approx(0.5, rel=1e-5)
        assert found.cosine == pytest.approx(1)


def test_integers_booleans_and_strings_are_counted():
    a = np.array([1, 5, 9, 200], np.uint8)
    found = closeness(a, np.array([1, 7, 9, 0], np.uint8))
    assert (found.max_abs, found.relative_l2, found.within) == (200, 0.5, 0.5)
    assert found.ulps == ()
    flags = closeness(np.array([True, False]), np.array([True, True]))
    assert flags.relative_l2 == 0.5
    words = closeness(np.array(["a", "b"], object), np.array(["a", "c"], object))
    assert (words.relative_l2, words.within) == (0.5, 0.5)


def test_empty_arrays_agree():
    found = closeness(np.empty((0, 4), np.float32), np.empty((0, 4), np.float32))
    assert (found.relative_l2, found.within, found.top1) == (0, 1, None)


def test_scalars():
    found = closeness(np.array(2.0, np.float32), np.array(2.5, np.float32))
    assert (found.max_abs, found.relative_l2, found.ulps[-1]) == (0.5, 0.25, 1)
    assert closeness(np.array(3), np.array(3)).within == 1
