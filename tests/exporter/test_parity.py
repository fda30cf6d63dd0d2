"""What counts as rounding, and what does not."""

import numpy as np
import pytest

from onnxfuse.exporter.distance import FLOOR, worst_slice
from onnxfuse.exporter.parity import measure

RANDOM = np.random.default_rng(0)
EXACT = RANDOM.standard_normal((3, 400))
EXPECTED = EXACT.astype(np.float32)
ROUNDOFF = 2.0**-24


def compared(actual, expected=EXPECTED, rounded=(EXACT,), **options):
    return measure("y", "3x400", actual, expected, rounded, **options)


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
    assert compared(far, rounded=[EXACT * (1 + 5e-5)]).agrees
    moved = EXPECTED * np.float32(1 + 5e-5)
    assert compared(far, rounded=[EXACT, moved]).agrees


def test_no_rounding_explains_everything():
    assert not compared(EXPECTED + 1, rounded=[EXACT + 2]).agrees
    assert not compared(EXPECTED[:2], rounded=[np.full_like(EXACT, np.inf)]).agrees


def test_numbers_that_overflow_in_one_type_tell_nothing():
    overflown = EXPECTED.copy()
    overflown[0, 0] = np.inf
    parity = compared(overflown, overflown)
    assert parity.agrees
    assert parity.rounding < 1e-6
    off = overflown.copy()
    off[1:] += 1
    assert not compared(off, overflown).agrees


def test_without_a_yardstick_the_bound_is_fixed():
    parity = compared(EXPECTED, rounded=())
    assert parity.rounding is None
    assert FLOOR * ROUNDOFF < parity.bound < 1e-3
    assert parity.agrees


def test_nan_and_infinity_equal_themselves_alone():
    special = EXPECTED.copy()
    special[0, :3] = np.nan, np.inf, -np.inf
    assert compared(special, special, [special.astype(np.float64)]).error == 0
    for value in (np.nan, np.inf, 0):
        other = special.copy()
        other[0, 2] = value
        assert compared(other, special, ()).error == np.inf


def test_zeros_are_compared_absolutely():
    zeros = np.zeros(4, np.float32)
    assert compared(zeros, zeros, ()).error == 0
    assert compared(zeros + np.float32(0.1), zeros, ()).error == pytest.approx(0.2, rel=1e-6)


def test_large_numbers_do_not_overflow():
    large = EXACT * 1e200
    assert compared(large * (1 + 1e-16), large, [large]).agrees
    assert not compared(large * 1.1, large, [large]).agrees


def test_integers_may_flip_rarely_where_there_is_rounding():
    labels = np.arange(1000)
    one = labels.copy()
    one[17] += 5
    parity = compared(one, labels, ())
    assert (parity.error, parity.largest) == (0.001, 5)
    assert parity.agrees
    assert not compared(labels + 1, labels, ()).agrees
    unsure = labels.copy()
    unsure[:100] += 1
    assert compared(unsure, labels, [labels + (np.arange(1000) < 50)]).agrees


def test_integers_of_integers_are_exact():
    large = np.array([2**60, 3])
    assert compared(large, large, [large], exact=True).agrees
    assert not compared(large + np.array([1, 0]), large, [large], exact=True).agrees


def test_other_shapes_types_and_empty_outputs():
    assert compared(EXPECTED[:2]).error == np.inf
    assert compared(EXACT, EXPECTED).error == np.inf
    empty = np.zeros((0, 3), np.float32)
    assert compared(empty, empty, ()).agrees


def test_half_precision_has_its_own_roundoff():
    half = EXACT.astype(np.float16)
    assert compared(half * np.float16(1.001), half).agrees
    assert not compared(half * np.float16(1.1), half).agrees


@pytest.mark.parametrize("axis", [1, 2])
def test_a_small_channel_beside_large_ones_is_seen(axis):
    exact = RANDOM.standard_normal((2, 6, 6)) * 1e6
    index = (slice(None),) * axis + (3,)
    exact[index] *= 1e-6
    expected, off = exact.astype(np.float32), exact.astype(np.float32)
    off[index] += 1
    assert measure("y", "", off, expected, [exact]).agrees
    place = worst_slice(off, expected, [exact])
    assert place == f"[3] along axis {axis}"
    assert worst_slice(expected * np.float32(1 + ROUNDOFF), expected, [exact]) is None
