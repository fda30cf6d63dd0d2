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
    window,
)
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
