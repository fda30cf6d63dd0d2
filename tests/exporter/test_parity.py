"""What counts as rounding, and what does not."""

import numpy as np
import pytest

from onnxfuse.exporter.parity import FLOOR, measure

RANDOM = np.random.default_rng(0)
EXACT = RANDOM.standard_normal((3, 400))
EXPECTED = EXACT.astype(np.float32)
ROUNDOFF = 2.0**-24


def compared(actual, expected=EXPECTED, exact=EXACT):
    return measure("y", "3x400", actual, expected, exact)


def test_the_error_is_relative_l2():
    apart = EXPECTED + np.float32(0.5)
    parity = compared(apart)
    norm = sum(float(v) ** 2 for v in EXPECTED.ravel()) ** 0.5
    assert parity.error == pytest.approx(0.5 * 1200**0.5 / norm, rel=1e-6)
    assert parity.largest == pytest.approx(0.5, rel=1e-6)
    assert parity.rounding == pytest.approx(
        float(np.linalg.norm(EXPECTED - EXACT) / np.linalg.norm(EXACT)), rel=1e-6
    )
    assert not parity.agrees


def test_a_few_roundings_agree():
    parity = compared(EXPECTED * np.float32(1 + 8 * ROUNDOFF))
    assert 0 < parity.error < parity.bound
    assert parity.agrees


def test_what_rounding_does_not_explain_differs():
    off = EXPECTED.copy()
    off[1] *= np.float32(1.0001)
    assert not compared(off).agrees


def test_a_network_that_amplifies_rounding_is_allowed_more():
    far = EXPECTED * np.float32(1 + 1e-4)
    assert not compared(far).agrees
    assert compared(far, exact=EXACT * (1 + 5e-5)).agrees


def test_without_float64_the_bound_is_fixed():
    parity = compared(EXPECTED, exact=None)
    assert parity.rounding is None
    assert FLOOR * ROUNDOFF < parity.bound < 1e-3
    assert parity.agrees


def test_nan_and_infinity_equal_themselves_alone():
    special = EXPECTED.copy()
    special[0, :3] = np.nan, np.inf, -np.inf
    assert compared(special, special, special.astype(np.float64)).error == 0
    for value in (np.nan, np.inf, 0):
        other = special.copy()
        other[0, 2] = value
        assert compared(other, special, None).error == np.inf


def test_zeros_are_compared_absolutely():
    zeros = np.zeros(4, np.float32)
    assert compared(zeros, zeros, None).error == 0
    assert compared(zeros + np.float32(0.1), zeros, None).error == pytest.approx(0.2, rel=1e-6)


def test_integers_may_flip_rarely():
    labels = np.arange(1000)
    one = labels.copy()
    one[17] += 5
    parity = compared(one, labels, None)
    assert (parity.error, parity.largest) == (0.001, 5)
    assert parity.agrees
    assert not compared(labels + 1, labels, None).agrees
    unsure = labels.copy()
    unsure[:100] += 1
    assert compared(unsure, labels, labels + (np.arange(1000) < 50)).agrees


def test_other_shapes_and_empty_outputs():
    assert compared(EXPECTED[:2]).error == np.inf
    empty = np.zeros((0, 3), np.float32)
    assert compared(empty, empty, None).agrees


def test_half_precision_has_its_own_roundoff():
    half, exact = EXACT.astype(np.float16), EXACT
    assert measure("y", "", half * np.float16(1.001), half, exact).agrees
    assert not measure("y", "", half * np.float16(1.1), half, exact).agrees
