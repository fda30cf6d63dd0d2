"""What counts as y = x, where it is not even looked for, and maps without negative pads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxfuse.affine import Deferred, affine_conv, channel_affine, is_trivial, without_crops


@pytest.mark.parametrize(
    ("shape", "settings", "is_selective"),
    [
        ((4, 4, 3, 3), {"pads": (1,) * 4}, True),
        ((4, 4, 1, 1), {"strides": (2, 2)}, True),
        ((6, 4, 1, 1), {}, True),
        ((4, 4, 1, 1), {}, False),
        ((2000, 2000, 1, 1), {}, True),
    ],
)
def test_is_trivial_looks_at_no_weight_that_cannot_be_or_is_costly(shape, settings, is_selective):
    f = affine_conv(Deferred(lambda: pytest.fail("it looked")), shape=shape, **settings)
    assert not is_trivial(replace(f, is_selective=is_selective))


def test_is_trivial_tells_ones_from_the_identity():
    chosen = affine_conv(np.ones((4, 4, 1, 1)))
    assert not is_trivial(replace(chosen, is_selective=True))
    chosen = affine_conv(np.eye(4).reshape(4, 4, 1, 1))
    assert is_trivial(replace(chosen, is_selective=True))


def test_is_trivial_tells_a_shift_and_a_scale():
    ones = np.ones(3)
    assert is_trivial(channel_affine(ones, np.zeros(3), 3, 2))
    assert not is_trivial(channel_affine(ones, np.array([0.0, 0.5, 0.0]), 3, 2))
    assert not is_trivial(channel_affine(np.array([1.0, 1.25, 1.0]), None, 3, 2))


@pytest.mark.parametrize("size", range(6, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pads", [(-1, -1), (0, -2), (1, -3), (-2, 0)])
@pytest.mark.parametrize("is_bound", [True, False])
def test_maps_without_crops_make_as_many_positions(size, kernel, stride, pads, is_bound):
    weight = np.ones((1, 1, kernel))
    f = affine_conv(weight, strides=(stride,), pads=pads, at_size=(size,) if is_bound else None)
    g = without_crops(f)
    assert min(g.pads) >= 0
    assert g.output_size((size,)) == f.output_size((size,))
