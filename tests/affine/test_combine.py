import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse.affine import (
    Deferred,
    Refusal,
    add,
    affine_conv,
    average_pool,
    channel_affine,
    compose,
    concat,
    identity,
    padded_with,
    regroup,
    rounded_outside,
    select,
    trim,
    window,
)
from onnxfuse.affine.window import FixedWindow
from tests.affine.definition import affine_convs, apply, image


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def check_sum(h, parts, x):
    np.testing.assert_allclose(apply(h, x), sum(apply(p, x) for p in parts), rtol=1e-11, atol=1e-11)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_sum_is_the_sum_or_is_refused(data):
    f = data.draw(affine_convs(crops=True))
    g = data.draw(affine_convs(rank=f.rank, in_channels=f.in_channels, strides=f.strides))
    channels = min(f.out_channels, g.out_channels)
    f, g = select(f, range(channels)), select(g, range(channels))
    for extra in range(3):
        x = image(f, g, extra=extra)
        for size in (None, x.shape[1:]):
            h = add(f, g, size)
            if not isinstance(h, Refusal):
                assert size is not None or h.at_size is None
                check_sum(h, (f, g), x)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_branches_of_one_output_size_and_no_outside_value_always_add(data):
    rank = data.draw(st.integers(1, 2))
    channels, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    branches = []
    for seed in range(3):
        kernel = tuple(data.draw(st.sampled_from([1, 3, 5])) for _ in range(rank))
        dilations = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
        half = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilations, strict=True))
        branches.append(
            affine_conv(
                random(channels, channels, *kernel, seed=seed),
                random(channels, seed=seed + 9),
                strides=(stride,) * rank,
                dilations=dilations,
                pads=(*half, *half),
            )
        )
    h = add(add(branches[0], branches[1]), branches[2])
    assert not isinstance(h, Refusal)
    check_sum(h, branches, image(*branches))


def test_three_branch_block_is_one_3x3():
    branches = [
        affine_conv(random(4, 4, 3, 3), random(4), pads=(1, 1, 1, 1)),
        affine_conv(random(4, 4, 1, 1), random(4, seed=1)),
        identity(4, 2),
    ]
    h = add(add(branches[0], branches[1]), branches[2])
    assert (h.kernel, h.pads, h.groups) == ((3, 3), (1, 1, 1, 1), 1)
    check_sum(h, branches, random(4, 5, 6))


def test_the_anchor_decides_and_not_the_middle():
    even = affine_conv(random(2, 2, 2), pads=(0, 1))
    odd = affine_conv(random(2, 2, 3), pads=(1, 1))
    h = add(even, odd)
    assert h.kernel == (3,)
    check_sum(h, (even, odd), random(2, 7))


def test_dilated_branches_meet_on_the_common_grid():
    a = affine_conv(random(2, 2, 3), pads=(2, 2), dilations=(2,))
    b = affine_conv(random(2, 2, 3), pads=(3, 3), dilations=(3,))
    h = add(a, b)
    assert (h.kernel, h.dilations, h.pads) == ((7,), (1,), (3, 3))
    even = add(a, affine_conv(random(2, 2, 3), pads=(4, 4), dilations=(4,)))
    assert (even.kernel, even.dilations) == ((5,), (2,))
    check_sum(h, (a, b), random(2, 11))


@pytest.mark.parametrize(("f", "g"), [(2, 4), (4, 1), (6, 4), (12, 12)])
def test_groups_of_a_sum_are_the_common_divisor(f, g):
    a = affine_conv(random(12, 12 // f, 3), pads=(1, 1), groups=f)
    b = affine_conv(random(12, 12 // g, 1), groups=g)
    h = add(a, b)
    assert h.groups == np.gcd(f, g)
    check_sum(h, (a, b), random(12, 5))


def test_refuses_different_strides():
    a = affine_conv(random(2, 2, 1), strides=(2,))
    assert isinstance(add(a, identity(2, 1)), Refusal)


def test_refuses_sizes_that_agree_for_some_inputs_only_unless_the_size_is_known():
    a = affine_conv(random(2, 2, 2), strides=(2,))
    b = affine_conv(random(2, 2, 1), strides=(2,))
    assert isinstance(add(a, b), Refusal)
    h = add(a, b, (8,))
    assert h.at_size == (8,)
    check_sum(h, (a, b), random(2, 8))
    assert isinstance(add(a, b, (9,)), Refusal)


def test_refuses_branches_that_pad_with_different_values():
    a = affine_conv(random(2, 2, 3), pads=(1, 1))
    assert isinstance(add(a, padded_with(a, np.array([1.0, 2.0]))), Refusal)


def test_a_branch_that_reads_nothing_outside_takes_the_other_outside_value():
    a = padded_with(affine_conv(random(2, 2, 3), pads=(1, 1)), np.array([1.0, 2.0]))
    b = channel_affine(random(2), random(2, seed=1), 2, 1)
    check_sum(add(a, b), (a, b), random(2, 6))
    check_sum(add(b, a), (a, b), random(2, 6))


def test_refuses_different_channels():
    assert isinstance(add(identity(2, 1), affine_conv(random(3, 2, 1))), Refusal)
    assert isinstance(add(identity(2, 1), identity(3, 1)), Refusal)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_concat_joins_outputs(data):
    f = data.draw(affine_convs(crops=True))
    g = data.draw(affine_convs(rank=f.rank, in_channels=f.in_channels, strides=f.strides))
    x = image(f, g)
    h = concat([f, g, f], x.shape[1:])
    if not isinstance(h, Refusal):
        joined = np.concatenate([apply(f, x), apply(g, x), apply(f, x)])
        np.testing.assert_allclose(apply(h, x), joined, rtol=1e-11, atol=1e-11)


@settings(max_examples=100, deadline=None)
@given(affine_convs(), st.integers(0, 2**32 - 1))
def test_select_takes_outputs(f, seed):
    index = np.random.default_rng(seed).integers(0, f.out_channels, size=5)
    x = image(f)
    np.testing.assert_allclose(apply(select(f, index), x), apply(f, x)[index], rtol=1e-12)


def test_split_convs_and_concat_are_one_grouped_conv():
    halves = [
        select(identity(6, 1), range(3)),
        select(identity(6, 1), range(3, 6)),
    ]
    weights = [random(4, 3, 3, seed=s) for s in range(2)]
    branches = [
        compose(affine_conv(w, pads=(1, 1)), h) for w, h in zip(weights, halves, strict=True)
    ]
    h = regroup(concat(branches))
    assert h.groups == 2
    np.testing.assert_array_equal(h.weight, np.concatenate(weights))


def test_sum_with_its_own_negative_is_zero_and_trims_to_one_tap():
    f = affine_conv(random(2, 2, 3, 3), pads=(1, 1, 1, 1))
    h = trim(add(f, affine_conv(-f.weight, pads=(1, 1, 1, 1))))
    assert h.kernel == (1, 1)
    assert not h.weight.any()
    assert apply(h, random(2, 4, 5)).shape == (2, 4, 5)


@settings(max_examples=150, deadline=None)
@given(affine_convs(crops=True), st.data())
def test_trim_and_regroup_keep_the_map(f, data):
    weight = f.weight.copy()
    for axis in range(f.rank):
        dead = data.draw(st.sampled_from([(), (0,), (-1,), (0, -1)]))
        for tap in dead:
            np.moveaxis(weight, axis + 2, 0)[tap] = 0
    if data.draw(st.booleans()):
        weight[:, data.draw(st.integers(0, weight.shape[1] - 1))] = 0
    g = affine_conv(
        weight, f.bias, strides=f.strides, dilations=f.dilations, pads=f.pads, groups=f.groups
    )
    g = padded_with(g, f.outside)
    h = regroup(trim(g))
    assert np.prod(h.kernel) <= np.prod(g.kernel)
    x = image(g)
    np.testing.assert_allclose(apply(h, x), apply(g, x), rtol=1e-12, atol=1e-12)


def test_regroup_finds_depthwise():
    dense = np.zeros((4, 4, 3))
    dense[range(4), range(4)] = random(4, 3)
    assert regroup(affine_conv(dense)).groups == 4


def test_average_pool_counts_its_padding():
    pool = average_pool(2, (3,), (2,), (1,), (1, 1))
    x = random(2, 7)
    padded = np.pad(x, [(0, 0), (1, 1)])
    expected = np.stack([padded[:, i : i + 3].mean(axis=1) for i in range(0, 7, 2)], axis=1)
    np.testing.assert_allclose(apply(pool, x), expected)


def test_window_crops_and_strides():
    x = random(2, 9)
    np.testing.assert_array_equal(apply(window(2, 1, (-1, -2), (3,)), x), x[:, 1:7:3])


def test_affine_conv_names_what_does_not_fit():
    with pytest.raises(ValueError, match="groups=3"):
        affine_conv(random(4, 2, 1), groups=3)
    with pytest.raises(ValueError, match="groups=0"):
        affine_conv(random(4, 2, 1), groups=0)
    with pytest.raises(ValueError, match="pads"):
        affine_conv(random(4, 2, 1), pads=(1,))
    for name in ("strides", "dilations"):
        with pytest.raises(ValueError, match=name):
            affine_conv(random(4, 2, 1), **{name: (2, 3)})


# Padding values that somebody rounded -----------------------------------------------------------


def rounded_branch(seed, gap, kernel=3, channels=4):
    """A Conv after a biased one; it pads with that one's bias, off by `gap`: both, and the whole.

    Returns:
        The outer map, the inner map, and the outer after the inner with its border error.
    """
    f = affine_conv(random(5, 3, 1, 1, seed=9), random(5, seed=9))
    pads = (kernel // 2,) * 4
    g = affine_conv(random(channels, 5, kernel, kernel, seed=seed), random(channels), pads=pads)
    g = rounded_outside(padded_with(g, f.bias + gap), 2 * np.abs(gap))
    return g, f, compose(g, f)


def exceeds(off, error):
    """Where a difference (C, *S) is beyond the border error of its channel, and rounding."""
    return np.abs(off) > error.reshape(-1, *(1,) * (off.ndim - 1)) + 1e-11


def test_border_errors_of_a_sum_add_up():
    branches = [
        rounded_branch(seed, 1e-3 * random(5, seed=seed + 20), 3 + 2 * seed) for seed in (0, 1)
    ]
    h = add(branches[0][2], branches[1][2])
    np.testing.assert_allclose(h.border_error, sum(b[2].border_error for b in branches))
    x = random(3, 7, 8)
    off = apply(h, x) - sum(apply(g, apply(f, x)) for g, f, _ in branches)
    assert not exceeds(off, h.border_error).any()
    assert np.abs(off).max() > 1e-4


def test_a_branch_without_border_error_adds_none():
    _, _, whole = rounded_branch(0, 1e-3 * random(5))
    other = affine_conv(random(4, 3, 1, 1))
    np.testing.assert_array_equal(add(whole, other).border_error, whole.border_error)
    assert add(other, other).border_error_of is None


def test_border_errors_of_a_concatenation_stand_side_by_side():
    first, second = (
        rounded_branch(s, 1e-3 * random(5, seed=s), channels=c)[2] for s, c in ((0, 4), (1, 2))
    )
    plain = affine_conv(random(3, 3, 1, 1))
    h = concat([first, plain, second])
    expected = np.concatenate([first.border_error, np.zeros(3), second.border_error])
    np.testing.assert_array_equal(h.border_error, expected)
    assert concat([plain, plain]).border_error_of is None


def test_select_takes_border_errors():
    h = rounded_branch(0, 1e-3 * random(5))[2]
    np.testing.assert_array_equal(select(h, [3, 0, 3]).border_error, h.border_error[[3, 0, 3]])


def branches_near(gap, first_within, second_within):
    value = random(3, seed=5)
    a = padded_with(affine_conv(random(4, 3, 3), pads=(1, 1)), value)
    b = padded_with(affine_conv(random(4, 3, 5, seed=1), pads=(2, 2)), value + gap)
    if first_within is not None:
        a = rounded_outside(a, np.full(3, first_within))
    if second_within is not None:
        b = rounded_outside(b, np.full(3, second_within))
    return a, b


@pytest.mark.parametrize("join", [add, lambda f, g: concat([f, g])], ids=["add", "concat"])
@pytest.mark.parametrize("withins", [(None, 1e-2), (1e-2, None), (1e-2, 1e-2), (2e-2, 1e-2)])
def test_branches_that_pad_with_about_the_same_value_join(withins, join):
    """The value is that of a branch that nobody rounded, where there is one."""
    a, b = branches_near(1e-3 * random(3, seed=6), *withins)
    h = join(a, b)
    x = random(3, 8)
    parts = [apply(a, x), apply(b, x)]
    expected = sum(parts) if join is add else np.concatenate(parts)
    off = apply(h, x) - expected
    assert not exceeds(off, h.border_error).any()
    assert np.abs(off).max() > 1e-4
    exact = a if withins[0] is None else b
    if None in withins:
        np.testing.assert_array_equal(h.outside, exact.outside)
        assert h.outside_within_of is None


@pytest.mark.parametrize("join", [add, lambda f, g: concat([f, g])], ids=["add", "concat"])
@pytest.mark.parametrize("withins", [(None, None), (1e-4, None), (None, 1e-4), (1e-4, 1e-4)])
def test_refuses_branches_that_pad_with_values_further_apart_than_rounding(withins, join):
    assert isinstance(join(*branches_near(np.full(3, 1e-3), *withins)), Refusal)


def test_a_sum_of_rounded_branches_composes_with_what_is_before_it():
    f = affine_conv(random(3, 2, 1), random(3, seed=5))
    a, b = branches_near(1e-3 * random(3, seed=6), 1e-2, 1e-2)
    h = compose(add(a, b), f)
    x = random(2, 8)
    y = apply(f, x)
    off = apply(h, x) - apply(a, y) - apply(b, y)
    assert not exceeds(off, h.border_error).any()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_sum_is_within_its_border_error_or_is_refused(data):
    f = data.draw(affine_convs(crops=True))
    g = data.draw(affine_convs(rank=f.rank, in_channels=f.in_channels, strides=f.strides))
    channels = min(f.out_channels, g.out_channels)
    f, g = select(f, range(channels)), select(g, range(channels))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    within = 10.0 ** rng.uniform(-6, -2, f.in_channels)
    gap = within * rng.uniform(-1, 1, len(within))
    g = rounded_outside(padded_with(g, f.outside + gap), within)
    if data.draw(st.booleans()):
        f = rounded_outside(f, within)
    x = image(f, g)
    for size in (None, x.shape[1:]):
        for h in (add(f, g, size), add(g, f, size)):
            if not isinstance(h, Refusal):
                off = apply(h, x) - apply(f, x) - apply(g, x)
                assert not exceeds(off, h.border_error).any()


# What must not be done ----------------------------------------------------------------------------


def test_refuses_different_input_channels():
    found = add(affine_conv(random(4, 3, 1)), affine_conv(random(4, 5, 1)))
    assert isinstance(found, Refusal)
    assert found.reason == "different input channels"


@pytest.mark.parametrize("channels", [(4, 2), (6, 4)])
def test_refuses_windows_of_different_channels(channels):
    def transposed(outputs, inputs):
        weight = Deferred.of(random(outputs, inputs, 2, 2))
        return FixedWindow("ConvTranspose", outputs, inputs, (2, 2), 1, weight)

    found = add(transposed(4, 4), transposed(*channels))
    assert isinstance(found, Refusal)
    assert found.reason == "ConvTranspose branches with different channels"
    both = add(transposed(4, 4), transposed(4, 4))
    np.testing.assert_allclose(both.weight, 2 * random(4, 4, 2, 2), rtol=1e-12)
