"""Maps that are no convolution, and maps that take too much work to read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxfuse.affine import Refusal
from onnxfuse.probe.impulse import TOO_MUCH, read_off
from tests.probe.textbook import PLENTY, Textbook, distance, random, read, refusal


@pytest.mark.parametrize("axis", [2, 3])
def test_refuses_flip(axis):
    conv = Textbook(random(3, 2, 3, 3), pads=(1,) * 4)
    for batch in (1, 2):
        reason = refusal(lambda x: conv(np.flip(x, axis)), batch, 2, 9, 8)
        assert f"runs backwards along axis {axis}" in reason


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("by", [2, 3, 4])
def test_refuses_repeated_pixels(axis, by):
    reason = refusal(lambda x: np.repeat(x, by, axis), 1, 2, 9, 8)
    assert f"widens axis {axis}" in reason


def test_refuses_mask_in_the_middle():
    mask = random(9, 8)
    assert "depends on the position" in refusal(lambda x: x * mask, 2, 2, 9, 8)


def test_refuses_transposed_image():
    assert "depends on the position" in refusal(lambda x: x.swapaxes(2, 3), 1, 2, 9, 9)


def is_disproved(respond, *shape):
    """True when the term that is read is not the map, as comparing them shows."""
    term = read(respond, *shape)
    if isinstance(term, Refusal):
        return True
    x = random(*shape, seed=7)
    return distance(term, respond, *shape) > 1e-3 * np.abs(respond(x)).max()


@pytest.mark.parametrize("by", [1, -1, 2, 4])
def test_roll_is_refused_or_disproved(by):
    for axis in (2, 3):
        assert is_disproved(lambda x: np.roll(x, by, axis), 2, 2, 9, 8)  # noqa: B023


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("size", [5, 8])
def test_roll_of_a_small_image_is_a_convolution_at_that_size(by, size):
    """Taps n apart: for each output all but one of them read the padding."""
    term = read(lambda x: np.roll(x, by, 2), 2, 3, size)
    assert not isinstance(term, Refusal)
    assert distance(term, lambda x: np.roll(x, by, 2), 2, 3, size) == 0


@pytest.mark.parametrize("mode", ["wrap", "edge", "reflect", "symmetric"])
def test_other_padding_is_refused_or_disproved(mode):
    conv = Textbook(random(3, 2, 3, 3))
    around = [(0, 0), (0, 0), (1, 1), (1, 1)]
    assert is_disproved(lambda x: conv(np.pad(x, around, mode=mode)), 2, 2, 9, 8)


def test_mask_beside_the_middle_is_disproved():
    mask = np.ones((9, 8))
    mask[1, 1] = 0.5
    assert is_disproved(lambda x: x * mask, 2, 2, 9, 8)


def test_a_rim_of_another_value_on_one_side_is_disproved():
    def respond(x):
        y = np.pad(x, [(0, 0), (0, 0), (1, 1)], constant_values=2.0)
        y[:, :, 0] = 3.0
        return y

    assert is_disproved(respond, 1, 3, 9)


@pytest.mark.parametrize("batch", [2, 3])
def test_mixed_batch_is_refused_or_disproved(batch):
    assert is_disproved(lambda x: x[::-1], batch, 2, 9, 8)
    assert is_disproved(lambda x: x + x.mean(axis=0), batch, 2, 9, 8)
    assert is_disproved(lambda x: x.reshape(2, batch, 9, 8).swapaxes(0, 1), batch, 2, 9, 8)
    assert is_disproved(lambda x: np.roll(x, 1, axis=0), batch, 2, 9, 8)


def test_refuses_images_joined_to_one():
    for joined in (lambda x: x.sum(axis=0, keepdims=True), lambda x: x.reshape(1, -1, 9, 8)):
        assert "not an image for each image" in refusal(joined, 2, 2, 9, 8)


def test_refuses_another_rank():
    assert "not an image" in refusal(lambda x: x.reshape(*x.shape[:2], -1), 2, 2, 9, 8)


def test_refuses_constants_that_are_not_finite():
    assert "not finite" in refusal(lambda x: x + np.inf, 1, 2, 9)
    assert "not finite" in refusal(lambda x: x + np.nan, 1, 2, 9)


def test_refuses_a_map_of_nothing():
    assert "no output depends" in refusal(np.zeros_like, 1, 2, 9)
    assert "no output depends" in refusal(lambda x: 0 * x + 1, 1, 2, 9)


def test_refuses_a_mean_over_a_large_image():
    assert "whole image" in refusal(lambda x: x.mean(axis=(2, 3), keepdims=True), 1, 2, 9, 8)


# Work -------------------------------------------------------------------------------------------


def test_refuses_what_exceeds_its_budget():
    conv = Textbook(random(64, 64, 3), pads=(1, 1))
    assert refusal(conv, 1, 64, 9, most=30) == TOO_MUCH


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("groups", [1, 64])
def test_keeps_to_its_budget(groups, batch):
    """The geometry takes few evaluations, and the weights no more than allowed."""
    conv = Textbook(random(64, 64 // groups, 3, 3), pads=(1,) * 4, groups=groups)
    shape, calls = (batch, 64, 20, 20), itertools.count()

    def respond(x):
        next(calls)
        return conv(x)

    rest = conv(np.zeros(shape))
    for most in (0, 1, 8, PLENTY):
        before = next(calls)
        outcome = read_off(respond, shape, rest, most)
        assert next(calls) - before <= most + 32
        assert isinstance(outcome, Refusal) == (most == 0 or (most, groups, batch) == (1, 1, 1))


def test_channels_share_an_image_where_there_is_room():
    """64 channels one by one, but many of them in one image."""
    conv, calls = Textbook(random(8, 64, 3), pads=(1, 1)), itertools.count()

    def respond(x):
        next(calls)
        return conv(x)

    shape = (1, 64, 200)
    term = read_off(respond, shape, conv(np.zeros(shape)), PLENTY)
    assert not isinstance(term, Refusal)
    assert next(calls) < 32
