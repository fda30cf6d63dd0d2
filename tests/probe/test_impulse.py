"""Reading convolutions off maps that are defined in `textbook`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse.affine import Refusal, affine_conv
from onnxfuse.probe.impulse import read_off, with_ends
from tests.probe.textbook import EPSILON, PLENTY, Textbook, check, distance, random, read, refusal

# Convolutions -----------------------------------------------------------------------------------


@st.composite
def textbooks(draw):
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    largest = 3 if rank < 3 else 2
    kernel = tuple(draw(st.integers(1, largest)) for _ in range(rank))
    groups = draw(st.sampled_from([1, 1, 2, "depthwise"]))
    channels = draw(st.integers(1, 4)) if groups == "depthwise" else draw(st.integers(1, 2))
    groups = channels if groups == "depthwise" else groups
    width = 1 if groups == channels else channels
    out_channels = groups * draw(st.integers(1, 3))
    order = None
    if draw(st.booleans()):
        among = st.integers(0, groups * width)
        order = draw(st.lists(among, min_size=groups * width, max_size=groups * width))
    reads = groups * width if order is None else groups * width + 1
    seed = draw(st.integers(0, 99))
    return reads, Textbook(
        random(out_channels, width, *kernel, seed=seed),
        random(out_channels, seed=seed + 1) if draw(st.booleans()) else 0.0,
        tuple(draw(st.integers(1, largest)) for _ in range(rank)),
        tuple(draw(st.integers(1, largest)) for _ in range(rank)),
        tuple(draw(st.integers(-2, 3)) for _ in range(2 * rank)),
        groups,
        random(reads, seed=seed + 2) if draw(st.booleans()) else 0.0,
        order,
    )


def room(textbook):
    """A size at which the whole kernel is seen around the middle, and one output further."""
    return tuple(
        2 * (e + s + max(map(abs, textbook.pads))) + 2 + axis
        for axis, (e, s) in enumerate(zip(textbook.extents, textbook.strides, strict=True))
    )


@settings(max_examples=120, deadline=None)
@given(textbooks(), st.integers(1, 3))
def test_reads_convolutions(given_map, batch):
    channels, textbook = given_map
    term = check(textbook, batch, channels, *room(textbook))
    assert term.strides == textbook.strides


@pytest.mark.parametrize("outside", [0.0, 1.5])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kernel", [(3,), (2, 3), (3, 3), (2, 1, 3)])
def test_reads_what_goes_on_at_other_sizes(kernel, batch, outside):
    """The term that one size shows holds at others, padded behind for all of them."""
    rank = len(kernel)
    textbook = Textbook(
        random(4, 3, *kernel),
        random(4),
        strides=(2, 1, 3)[:rank],
        dilations=(1, 2, 1)[:rank],
        pads=(1, 0, 2, 2, 3, 1)[: 2 * rank],
        outside=outside * random(3),
    )
    shapes = [(batch, 3, *(n + 5 for n in room(textbook)[:rank]))]
    shapes += [(1, 3, *(n + extra for n in shapes[0][2:])) for extra in range(1, 7)]
    rest = [textbook(np.zeros(shape)) for shape in shapes]
    term = read_off(textbook, shapes[0], rest[0], PLENTY)
    term = with_ends(term, [(s[2:], y.shape[2:]) for s, y in zip(shapes, rest, strict=True)])
    assert (term.kernel, term.strides) == (kernel, textbook.strides)
    assert (term.dilations, term.begins) == (
        tuple(d if k > 1 else 1 for d, k in zip(textbook.dilations, kernel, strict=True)),
        textbook.pads[:rank],
    )
    for shape in shapes:
        assert distance(term, textbook, *shape) <= textbook.bound(random(*shape, seed=7))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_reads_depthwise_as_groups(multiplier):
    weight = random(5 * multiplier, 1, 3, 3)
    term = check(Textbook(weight, pads=(1,) * 4, groups=5), 1, 5, 9, 8)
    assert (term.groups, term.kernel) == (5, (3, 3))
    np.testing.assert_allclose(term.weight, weight, rtol=4 * EPSILON)


def test_reads_groups_of_two():
    term = check(Textbook(random(6, 2, 3), random(6), pads=(1, 1), groups=3), 2, 6, 9)
    assert term.kernel == (3,)


@pytest.mark.parametrize("order", [[2, 0, 1], [1], [3, 3, 0, 1], [0, 1, 2, 3], [3, 1]])
def test_reads_moved_channels_exactly(order):
    """A permutation, a part, or repeats: the weight is zeros and ones."""
    count = len(order)
    textbook = Textbook(np.ones((count, 1, 1, 1)), groups=count, strides=(2, 1), order=order)
    term = check(textbook, 1, 4, 8, 7)
    assert term.is_movement
    assert set(np.unique(term.weight)) <= {0.0, 1.0}
    assert distance(term, textbook, 2, 4, 8, 7) == 0


def test_reads_the_identity_as_such():
    term = read(lambda x: x, 2, 3, 6, 5)
    assert (term.kernel, term.strides, term.pads) == ((1, 1), (1, 1), (0,) * 4)
    np.testing.assert_array_equal(term.weight.ravel(), np.ones(3))
    assert term.is_movement


def test_a_sum_of_two_moves_is_no_move():
    term = read(lambda x: x[..., 1:] + x[..., :-1], 1, 2, 9)
    assert not term.is_movement


def test_a_move_and_a_bias_are_no_move():
    assert not check(Textbook(np.ones((2, 1, 1)), random(2), groups=2), 1, 2, 9).is_movement


@pytest.mark.parametrize("groups", [1, 4])
def test_reads_one_padding_value_for_each_channel(groups):
    values = random(4)
    textbook = Textbook(
        random(4, 4 // groups, 3, 3), random(4), pads=(1, 2, 0, 1), groups=groups, outside=values
    )
    term = check(textbook, 2, 4, 9, 11)
    np.testing.assert_allclose(term.outside, values, rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 4])
def test_reads_padding_with_zeros_as_zeros(groups):
    """Not as numbers near zero, which would be a Pad of its own."""
    weight = random(4, 4 // groups, 3, 3)
    textbook = Textbook(weight, 100 * random(4), pads=(1,) * 4, groups=groups)
    assert check(textbook, 2, 4, 9, 11).outside_of is None


def test_reads_a_kernel_with_holes():
    """Taps 0, 1 and 3 of 4, which lie on no coarser grid."""
    weight = random(3, 2, 4)
    weight[:, :, 2] = 0
    assert check(Textbook(weight, pads=(2, 1)), 1, 2, 15).kernel == (4,)


def test_trims_zero_taps():
    weight = random(3, 2, 5)
    weight[:, :, [0, 2, 4]] = 0
    term = check(Textbook(weight, pads=(2, 2)), 1, 2, 15)
    assert (term.kernel, term.dilations, term.begins) == ((2,), (2,), (1,))


def test_reads_a_crop_beyond_the_kernel():
    assert check(Textbook(random(3, 2, 2), pads=(-4, -3)), 1, 2, 19).begins == (-4,)


def test_reads_padding_beyond_the_kernel():
    """Some outputs read the padding alone."""
    textbook = Textbook(random(3, 2, 2, 2), pads=(3, 2, 4, 3), outside=random(2))
    check(textbook, 1, 2, 9, 8)


def test_reads_channels_that_are_not_read_as_zero():
    weight = random(3, 4, 3)
    weight[:, 2] = 0
    term = check(Textbook(weight, pads=(1, 1), outside=random(4)), 1, 4, 12)
    assert not term.weight[:, 2].any()


def test_reads_outputs_that_are_constant():
    weight = random(3, 4, 3)
    weight[1] = 0
    check(Textbook(weight, random(3), pads=(1, 1)), 1, 4, 12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_reads_weights_of_any_size(scale):
    check(Textbook(scale * random(3, 4, 3), scale * random(3), pads=(1, 1)), 1, 4, 12)


@pytest.mark.parametrize("channels", [1, 2, 300])
def test_tells_many_channels_apart(channels):
    order = np.random.default_rng(1).permutation(channels).tolist()
    textbook = Textbook(random(channels, 1, 2), groups=channels, order=order)
    term = check(textbook, 1, channels, 7)
    assert np.count_nonzero(term.weight) == 2 * channels


# Small images -----------------------------------------------------------------------------------

SMALL = [*itertools.product((1, 2, 3)), *itertools.product((1, 2, 3), repeat=2), (1, 1, 1)]


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("size", SMALL, ids=lambda size: "x".join(map(str, size)))
def test_reads_images_smaller_than_the_kernel(size, kernel):
    """Taps that no pixel meets are not seen, and not needed."""
    rank = len(size)
    for before, after in [(0, 0), (kernel // 2, kernel // 2), (kernel - 1, 0), (2, 3)]:
        pads = (before,) * rank + (after,) * rank
        if min(size) + before + after < kernel:
            continue
        for groups in (1, 2):
            weight = random(4, 2 // groups, *(kernel,) * rank)
            check(Textbook(weight, random(4), pads=pads, groups=groups), 2, 2, *size)


@pytest.mark.parametrize("size", [(4,), (2, 3), (5, 4), (3, 3, 3)])
def test_reads_the_window_that_is_the_whole_image(size):
    term = check(Textbook(random(5, 2, *size), random(5)), 2, 2, *size)
    assert term.kernel == size


@pytest.mark.parametrize("groups", [1, 2])
def test_reads_padding_values_of_a_small_image(groups):
    weight = random(4, 2 // groups, 3, 3)
    check(Textbook(weight, random(4), pads=(1,) * 4, groups=groups, outside=random(2)), 1, 2, 3, 3)


def test_refuses_padding_values_of_which_every_output_reads_some():
    """Then bias and values are not told apart, where outputs mix channels."""
    textbook = Textbook(random(4, 2, 3), random(4), pads=(1, 1), outside=random(2))
    assert "every output reads beyond its border" in refusal(textbook, 1, 2, 2)


# Strides ----------------------------------------------------------------------------------------


STRIDES = [*itertools.product((1, 2, 3), (1, 2, 3)), *((s, s) for s in (4, 7, 16)), (8, 11)]


@pytest.mark.parametrize(("stride", "kernel"), STRIDES)
@pytest.mark.parametrize("begin", [-1, 0, 1, 2])
def test_reads_strides(stride, kernel, begin):
    textbook = Textbook(random(3, 2, kernel), strides=(stride,), pads=(begin, 1))
    for extra in range(3):
        term = check(textbook, 1, 2, 5 * stride + kernel + 3 + extra)
        assert term.strides == (stride,)


@pytest.mark.parametrize(
    ("sizes", "ends"),
    [
        ([((8,), (4,))], (1,)),
        ([((8,), (4,)), ((9,), (5,))], (1,)),
        ([((7,), (4,)), ((9,), (5,))], (1,)),
        ([((7,), (3,)), ((9,), (4,))], (0,)),
        ([((8,), (5,))], (2,)),
        ([((8,), (3,))], (-1,)),
    ],
)
def test_pads_behind_as_the_sizes_tell(sizes, ends):
    """Of the paddings that give each size, the one nearest to that in front: 1 here."""
    term = with_ends(affine_conv(random(2, 2, 3), strides=(2,), pads=(1, 0)), sizes)
    assert term.ends == ends
    assert all(term.output_size(n) == m for n, m in sizes)


def test_refuses_sizes_that_do_not_follow():
    term = affine_conv(random(2, 2, 3), strides=(2,), pads=(1, 0))
    outcome = with_ends(term, [((8,), (4,)), ((10,), (6,))])
    assert isinstance(outcome, Refusal)
    assert "does not follow" in outcome.reason
