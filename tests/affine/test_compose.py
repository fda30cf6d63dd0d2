from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse.affine import (
    Refusal,
    affine_conv,
    average_pool,
    channel_affine,
    compose,
    identity,
    padded_with,
    rounded_outside,
    window,
)
from onnxfuse.affine.compose import natural_outside
from tests.affine.definition import affine_convs, apply, image


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def check_equal(h, g, f, x):
    np.testing.assert_allclose(apply(h, x), apply(g, apply(f, x)), rtol=1e-11, atol=1e-11)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_composition_is_one_map_after_the_other_or_is_refused(data):
    f = data.draw(affine_convs(crops=True))
    g = data.draw(affine_convs(rank=f.rank, in_channels=f.out_channels, crops=True))
    for extra in range(3):
        x = image(f, g, extra=extra)
        for size in (None, x.shape[1:]):
            h = compose(g, f, size)
            if isinstance(h, Refusal):
                continue
            assert size is not None or h.at_size is None
            check_equal(h, g, f, x)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_composition_without_padding_is_never_refused(data):
    f = data.draw(affine_convs())
    g = data.draw(affine_convs(rank=f.rank, in_channels=f.out_channels))
    g = affine_conv(g.weight, g.bias, strides=g.strides, dilations=g.dilations, groups=g.groups)
    h = compose(g, f)
    assert not isinstance(h, Refusal)
    x = image(f, g)
    check_equal(h, g, f, x)


def test_folds_unbiased_pointwise_before_padded_conv():
    f = affine_conv(random(5, 3, 1, 1))
    g = affine_conv(random(4, 5, 3, 3), random(4), pads=(1, 1, 1, 1))
    h = compose(g, f)
    assert h.kernel == (3, 3)
    assert h.at_size is None
    check_equal(h, g, f, random(3, 5, 6))


def test_refuses_biased_pointwise_before_padded_conv():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    g = affine_conv(random(4, 5, 3, 3), pads=(1, 1, 1, 1))
    refusal = compose(g, f)
    assert isinstance(refusal, Refusal)
    assert "outside" in refusal.reason
    assert isinstance(compose(g, f, (6, 7)), Refusal)


def test_folds_biased_pointwise_before_conv_that_pads_with_the_bias():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    g = padded_with(affine_conv(random(4, 5, 3, 3), pads=(1, 1, 1, 1)), f.bias)
    h = compose(g, f)
    assert not h.outside.any()
    check_equal(h, g, f, random(3, 5, 6))


def test_refuses_padded_conv_before_padded_conv():
    f = affine_conv(random(5, 3, 3, 3), pads=(1, 1, 1, 1))
    g = affine_conv(random(4, 5, 3, 3), pads=(1, 1, 1, 1))
    assert isinstance(compose(g, f), Refusal)


def test_folds_fully_padded_conv_before_padded_conv():
    f = affine_conv(random(5, 3, 3, 3), pads=(2, 2, 2, 2))
    g = affine_conv(random(4, 5, 3, 3), pads=(1, 1, 1, 1))
    h = compose(g, f)
    assert h.kernel == (5, 5)
    assert h.pads == (3, 3, 3, 3)
    check_equal(h, g, f, random(3, 4, 5))


def test_shift_before_padded_conv_moves_to_the_outside_value():
    scale, shift = random(3), random(3, seed=1)
    f = channel_affine(scale, shift, 3, 2)
    g = affine_conv(random(4, 3, 3, 3), pads=(1, 1, 1, 1))
    h = compose(g, f)
    np.testing.assert_allclose(h.outside, -shift / scale)
    check_equal(h, g, f, random(3, 5, 5))


def test_refuses_shift_before_padded_conv_when_a_scale_is_zero():
    f = channel_affine(np.array([1.0, 0.0, 2.0]), random(3), 3, 2)
    g = affine_conv(random(4, 3, 3, 3), pads=(1, 1, 1, 1))
    assert isinstance(compose(g, f), Refusal)


def test_strided_pointwise_before_padded_conv():
    f = affine_conv(random(5, 3, 1, 1), strides=(2, 2))
    g = affine_conv(random(4, 5, 3, 3), pads=(1, 1, 1, 1))
    h = compose(g, f)
    assert h.dilations == (2, 2)
    for size in range(5, 9):
        check_equal(h, g, f, random(3, size, size + 1))


def test_padding_that_no_window_reaches_does_not_count_at_a_known_size():
    f = affine_conv(random(5, 3, 2, 2), strides=(2, 2))
    g = affine_conv(random(4, 5, 3, 3), strides=(2, 2), pads=(0, 0, 1, 1))
    assert isinstance(compose(g, f), Refusal)
    h = compose(g, f, (10, 10))
    assert h.at_size == (10, 10)
    check_equal(h, g, f, random(3, 10, 10))


@pytest.mark.parametrize("groups", [(1, 2), (2, 1), (2, 4), (4, 4), (8, 1), (1, 8), (8, 4)])
def test_groups_of_a_composition_are_the_common_divisor(groups):
    inner, outer = groups
    f = affine_conv(random(8, 8 // inner, 1, 1), groups=inner)
    g = affine_conv(random(8, 8 // outer, 3, 3), groups=outer)
    h = compose(g, f)
    assert h.groups == np.gcd(inner, outer)
    check_equal(h, g, f, random(8, 5, 5))


def test_identity_composes_to_the_other_map():
    g = affine_conv(random(4, 3, 3, 3), pads=(1, 1, 1, 1))
    assert compose(g, identity(3, 2)) is g
    assert compose(identity(4, 2), g) is g


def test_three_dimensions():
    f = affine_conv(random(2, 3, 1, 1, 1))
    g = affine_conv(random(4, 2, 3, 1, 2), random(4), pads=(1, 0, 1, 1, 0, 1), strides=(2, 1, 1))
    check_equal(compose(g, f), g, f, random(3, 4, 3, 4))


def test_matrix_products():
    f = affine_conv(random(5, 3), random(5))
    g = affine_conv(random(2, 5), random(2, seed=3))
    h = compose(g, f)
    np.testing.assert_allclose(h.weight, g.weight @ f.weight)
    np.testing.assert_allclose(h.bias, g.weight @ f.bias + g.bias)


def test_refuses_channels_that_do_not_fit():
    assert isinstance(compose(affine_conv(random(4, 3, 1)), affine_conv(random(2, 5, 1))), Refusal)


def test_padded_average_pool_after_biased_conv_is_refused_and_unpadded_is_not():
    f = affine_conv(random(4, 3, 1, 1), random(4))
    padded = average_pool(4, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    assert isinstance(compose(padded, f), Refusal)
    plain = average_pool(4, (3, 3), (2, 2), (1, 1), (0, 0, 0, 0))
    check_equal(compose(plain, f), plain, f, random(3, 6, 7))


def test_crop_and_pad():
    f = window(3, 2, (1, 0, 2, 1), (1, 1))
    g = window(3, 2, (-1, 0, -2, -1), (1, 1))
    check_equal(compose(g, f), g, f, random(3, 5, 6))
    assert isinstance(compose(f, g), Refusal)


def test_refuses_what_holds_at_one_size_where_the_size_is_not_known():
    f = affine_conv(random(4, 3, 1, 1), random(4))
    pool = replace(average_pool(4, (5, 6), (1, 1), (1, 1), (0,) * 4), at_size=(5, 6))
    found = compose(pool, f)
    assert isinstance(found, Refusal)
    assert found.reason == "valid at one size only, and the size of the input is not known"
    check_equal(compose(pool, f, (5, 6)), pool, f, random(3, 5, 6))


def test_refuses_shift_before_padded_conv_that_no_outside_value_makes_up_for():
    """x would have to be infinite outside."""
    f = channel_affine(np.array([0.5, 1e-300]), np.array([2.0, 1e100]), 2, 2)
    found = compose(affine_conv(random(4, 2, 3, 3), pads=(1,) * 4), f)
    assert isinstance(found, Refusal)
    assert "outside its border the inner map is" in found.reason


# Padding values that somebody rounded -----------------------------------------------------------


def check_within(h, g, f, x):
    """The difference is within the border error, but for rounding: one value for each channel."""
    off = np.abs(apply(h, x) - apply(g, apply(f, x)))
    assert np.all(off.reshape(len(off), -1).max(axis=1) <= h.border_error + 1e-11)
    return off


def padding_near(f, gap, within, *channels):
    """A 3x3 Conv that pads with f's bias, off by `gap`, where `within` is taken for the same."""
    g = padded_with(affine_conv(random(*channels, 3, 3), pads=(1,) * 4), f.bias + gap)
    return rounded_outside(g, within)


def test_folds_padding_within_the_rounding_and_tells_how_far_off_it_is():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    gap = 1e-3 * random(5, seed=4)
    g = padding_near(f, gap, 2 * np.abs(gap), 4, 5)
    h = compose(g, f)
    assert not h.outside.any()
    off = check_within(h, g, f, random(3, 5, 6))
    assert np.all(off[:, 1:-1, 1:-1] <= 1e-12)
    assert off.max() > 1e-4


def test_the_border_error_is_what_a_padding_of_one_sign_makes():
    """An output that reads the padding alone is off by all of the weight times all of the gap."""
    f = affine_conv(random(5, 3, 1), random(5))
    gap = np.full(5, 1e-3)
    g = padded_with(affine_conv(np.abs(random(4, 5, 3)), pads=(3, 3)), f.bias + gap)
    g = rounded_outside(g, 2 * gap)
    h = compose(g, f)
    off = check_within(h, g, f, random(3, 6))
    np.testing.assert_allclose(off.max(axis=1), h.border_error, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.999])
def test_folds_padding_that_is_off_by_less_than_allowed(factor):
    f = affine_conv(random(5, 3, 1, 1), random(5))
    within = np.full(5, 1e-3)
    g = padding_near(f, factor * within, within, 4, 5)
    check_within(compose(g, f), g, f, random(3, 5, 6))


def test_refuses_padding_that_is_off_by_more_than_allowed_in_one_channel():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    within = np.full(5, 1e-3)
    g = padding_near(f, within * [0, 1.001, 0, 0, 0], within, 4, 5)
    refusal = compose(g, f)
    assert isinstance(refusal, Refusal)
    assert "outside its border" in refusal.reason


def test_allows_each_channel_its_own_rounding():
    f = affine_conv(random(2, 3, 1, 1), random(2))
    gap = np.array([1e-3, 0.0])
    assert not isinstance(compose(padding_near(f, gap, gap * 2, 4, 2), f), Refusal)
    assert isinstance(compose(padding_near(f, gap, gap[::-1] * 2, 4, 2), f), Refusal)


@pytest.mark.parametrize("gap", [1e-11, 1e-9, 1e-3])
def test_refuses_padding_that_is_off_where_nobody_rounded(gap):
    f = affine_conv(random(5, 3, 1, 1), random(5))
    g = padded_with(affine_conv(random(4, 5, 3, 3), pads=(1,) * 4), f.bias * (1 + gap))
    assert isinstance(compose(g, f), Refusal)


def test_has_no_border_error_where_nobody_rounded():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    g = padded_with(affine_conv(random(4, 5, 3, 3), pads=(1,) * 4), f.bias)
    h = compose(g, f)
    assert h.border_error_of is None
    assert h.outside_within_of is None
    assert rounded_outside(g, np.zeros(5)).outside_within_of is None


def test_has_no_border_error_where_nothing_is_padded():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    g = affine_conv(random(4, 5, 3, 3))
    g = rounded_outside(padded_with(g, f.bias + 1.0), np.full(5, 1e-3))
    h = compose(g, f)
    assert not h.border_error.any()
    check_equal(h, g, f, random(3, 5, 6))


def test_padding_with_almost_zero_after_a_layer_without_bias():
    f = affine_conv(random(5, 3, 1, 1))
    gap = 1e-7 * random(5)
    g = padded_with(affine_conv(random(4, 5, 3, 3), pads=(1,) * 4), gap)
    assert isinstance(compose(g, f), Refusal)
    g = rounded_outside(g, np.abs(gap))
    check_within(compose(g, f), g, f, random(3, 5, 6))


def test_layers_behind_carry_the_border_error_on():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    gap = 1e-3 * random(5, seed=4)
    g = padding_near(f, gap, 2 * np.abs(gap), 4, 5)
    k = affine_conv(random(2, 4, 2, 2), random(2), strides=(2, 1))
    h = compose(k, compose(g, f))
    check_within(h, compose(k, g), f, random(3, 6, 7))
    other = compose(compose(k, g), f)
    check_within(other, compose(k, g), f, random(3, 6, 7))


def test_layers_before_carry_the_rounding_on():
    """e, f pads with about e's bias, and g stands behind it without padding."""
    e = affine_conv(random(3, 2, 1, 1), random(3))
    gap = 1e-3 * random(3, seed=4)
    f = padding_near(e, gap, 2 * np.abs(gap), 5, 3)
    g = affine_conv(random(4, 5, 2, 2), random(4))
    inner = compose(g, f)
    np.testing.assert_array_equal(inner.outside_within, 2 * np.abs(gap))
    check_within(compose(inner, e), inner, e, random(2, 6, 7))


def test_a_shift_takes_the_rounding_with_it():
    """y = s x + t in front of padding: x is (pad - t) / s there, rounded by as much over |s|."""
    scale, shift = random(3), random(3, seed=1)
    f = channel_affine(scale, shift, 3, 2)
    within = np.full(3, 1e-3)
    g = rounded_outside(affine_conv(random(4, 3, 3, 3), pads=(1,) * 4), within)
    h = compose(g, f)
    np.testing.assert_allclose(h.outside, -shift / scale)
    np.testing.assert_allclose(h.outside_within, within / np.abs(scale))
    check_within(h, g, f, random(3, 5, 5))


def test_crops_and_selections_keep_the_border_error():
    f = affine_conv(random(5, 3, 1, 1), random(5))
    gap = 1e-3 * random(5, seed=4)
    g = padding_near(f, gap, 2 * np.abs(gap), 4, 5)
    h = compose(g, f)
    crop = window(4, 2, (-1, 0, 0, -2), (1, 2))
    check_within(compose(crop, h), compose(crop, g), f, random(3, 6, 7))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_composition_is_within_its_border_error_or_is_refused(data):
    """Inner and outer padding values both off by what rounding allows."""
    e = data.draw(affine_convs(pointwise=True))
    f = data.draw(affine_convs(rank=e.rank, in_channels=e.out_channels, crops=True))
    g = data.draw(affine_convs(rank=e.rank, in_channels=f.out_channels, crops=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def near(outer, inner):
        within = 10.0 ** rng.uniform(-6, -2, outer.in_channels)
        natural = natural_outside(inner)
        value = np.zeros(outer.in_channels) if natural is None else natural
        moved = padded_with(outer, value + within * rng.uniform(-1, 1, len(within)))
        return rounded_outside(moved, within)

    f = near(f, e)
    x = image(e, f, g)
    for size in (None, x.shape[1:]):
        first = compose(f, e, size)
        if isinstance(first, Refusal):
            continue
        check_within(first, f, e, x)
        outer = near(g, first)
        second = compose(outer, first, size)
        if not isinstance(second, Refusal):
            off = np.abs(apply(second, x) - apply(outer, apply(f, apply(e, x))))
            assert np.all(off.reshape(len(off), -1).max(axis=1) <= second.border_error + 1e-11)
