"""Blocks as integers and scales: ranges, optimality, what is exact, what is stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse.compression.shifts import Shifts, is_stored_well, least_scale, shifted
from tests.compression.definition import best_of_all, papers_rule

ALL_BITS = (2, 3, 4, 8)
SINGLE = 2.0**-24  # of float32: half a unit in the last place
HALF = 2.0**-11


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def errors(values, made):
    """Squared error of each block of rows that are whole blocks, in float64."""
    rest = (values.astype(np.float64) - made.values().astype(np.float64)) ** 2
    return rest.reshape(-1, made.size).sum(axis=1)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("zero_point", [False, True])
@given(
    rows=st.integers(1, 5),
    count=st.integers(1, 70),
    size=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_integers_are_in_range_and_the_last_block_is_shorter(
    bits, zero_point, rows, count, size, seed
):
    made = shifted(noise(seed, rows, count), size, bits, zero_point=zero_point)
    assert made.integers.shape == (rows, count)
    assert made.integers.dtype == np.int8
    assert made.scales.shape == (rows, -(-count // size))
    assert made.scales.dtype == np.float16
    for integers in filter(lambda part: part is not None, (made.integers, made.zeros)):
        assert integers.min() >= -(2 ** (bits - 1))
        assert integers.max() <= 2 ** (bits - 1) - 1
    assert (made.zeros is not None) == zero_point


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("size", [9, 32, 128])
@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, SINGLE), (np.float16, HALF)])
@pytest.mark.parametrize("zero_point", [False, True])
def test_no_block_is_worse_than_by_the_papers_rule(bits, size, dtype, rounding, zero_point):
    """But for the rounding of s, which adds (rounding * s)^2 <q, q> <= rounding^2 <w, w>, and for
    sums of `size` terms in float32, which choose between candidates."""
    values = noise(bits + size, 400, size)
    values[::7] = np.abs(values[::7]) + 1  # one sign: what a zero point is for
    found = errors(values, shifted(values, size, bits, zero_point=zero_point, dtype=dtype))
    square = np.sum(values.astype(np.float64) ** 2, axis=1)
    allowed = (rounding**2 + 8 * size * SINGLE) * square
    assert np.all(found <= papers_rule(values, bits) + allowed)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_small_blocks_are_near_the_best_there_is(bits):
    """Every change of an integer is tried by the oracle; the search tries a grid of steps."""
    values = noise(3, 200, 6)
    found = errors(values, shifted(values, 6, bits, dtype=np.float32))
    best = np.array([best_of_all(block.astype(np.float64), bits) for block in values])
    assert np.all(found >= best - 1e-6 * np.sum(values**2, axis=1))
    assert found.sum() <= 1.1 * best.sum()
    assert np.median(found / best) <= 1.01


def test_clipping_pays_most_at_two_bits():
    values = noise(5, 2000, 32)
    gains = {}
    for bits in (2, 4):
        found = errors(values, shifted(values, 32, bits, dtype=np.float32))
        gains[bits] = papers_rule(values, bits).sum() / found.sum()
    assert gains[2] > gains[4] > 1


def test_a_zero_point_is_for_blocks_of_one_sign():
    values = np.abs(noise(6, 300, 32))
    plain = errors(values, shifted(values, 32, 4)).sum()
    assert errors(values, shifted(values, 32, 4, zero_point=True)).sum() < plain / 2


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("zero_point", [False, True])
def test_blocks_of_zeros_are_exact(bits, zero_point):
    values = noise(7, 6, 64)
    values[2] = 0
    values[4, :32] = 0
    made = shifted(values, 32, bits, zero_point=zero_point)
    assert np.all(made.values()[values == 0] == 0)
    assert is_stored_well(values, made, bits)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("value", [3.0, -0.25, 1.7, 1e-30, 2e37, 1e-35])
def test_blocks_of_one_value_are_exact_to_one_rounding(bits, value):
    values = np.full((2, 32), value, np.float32)
    made = shifted(values, 32, bits, dtype=np.float32)
    assert np.abs(made.values().astype(np.float64) / values - 1).max() <= 4 * SINGLE


@pytest.mark.parametrize("factor", [1e-30, 1e-10, 1e10, 1e30])
def test_integers_do_not_depend_on_a_power_of_two(factor):
    values = noise(8, 10, 64)
    scaled = values * np.float32(2.0 ** round(np.log2(factor)))
    first, second = (shifted(v, 32, 4, dtype=np.float32) for v in (values, scaled))
    assert np.array_equal(first.integers, second.integers)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_scales_that_float16_would_lose_are_told(bits):
    values = noise(9, 4, 32)
    assert is_stored_well(values, shifted(values, 32, bits), bits)
    for factor in (1e-9, 1e9):
        scaled = values * np.float32(factor)
        assert not is_stored_well(scaled, shifted(scaled, 32, bits), bits)
        assert is_stored_well(scaled, shifted(scaled, 32, bits, dtype=np.float32), bits)


def test_denormal_numbers_are_told():
    values = noise(10, 4, 32) * np.float32(1e-41)
    assert not is_stored_well(values, shifted(values, 32, 4, dtype=np.float32), 4)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_smallest_scale_costs_less_than_a_twentieth(bits):
    """As `least_scale` says: rounding noise of a scale against that of integers."""
    scale = least_scale(bits, np.float16)
    spacing = max(2.0**-24, scale * 2.0**-10)  # of float16, below and above 2^-14
    rounded = (spacing / 2) ** 2 * 4.0 ** (bits - 1)
    assert rounded <= scale**2 / 12 / 20


def test_values_are_the_formula():
    made = Shifts(
        np.array([[1, -2, 3, 4, 5]], np.int8),
        np.array([[0.5, -2.0, 4.0]], np.float16),
        np.array([[1, 0, -1]], np.int8),
        2,
    )
    assert made.values().tolist() == [[0.0, -1.5, -6.0, -8.0, 24.0]]
