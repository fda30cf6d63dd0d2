"""A convolution defined window by window; and reading terms off maps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onnxfuse.affine import Refusal
from onnxfuse.probe.impulse import read_off, with_ends
from tests.affine.definition import apply

PLENTY = 10_000
EPSILON = float(np.finfo(np.float64).eps)


def random(*shape, seed=0):
    """Random numbers of either sign, none of them near zero."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


@dataclass
class Textbook:
    """y[n, o, q] = b[o] + sum of W[o] * (the window of the padded x at q), in each group.

    Every channel of x is padded with a value of its own, and cropped where pads are negative; then
    channels are taken in some order, where it is given: a permutation, a part, or repeats.
    """

    weight: np.ndarray
    bias: np.ndarray | float = 0.0
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    groups: int = 1
    outside: np.ndarray | float = 0.0
    order: list[int] | None = None

    def __post_init__(self):
        self.rank = self.weight.ndim - 2
        self.strides = self.strides or (1,) * self.rank
        self.dilations = self.dilations or (1,) * self.rank
        self.pads = self.pads or (0,) * (2 * self.rank)
        kernel = self.weight.shape[2:]
        self.extents = tuple((k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True))

    def _along(self, values):
        """Numbers, one for each channel, to be broadcast against an image."""
        return np.reshape(values, (-1, *(1,) * self.rank))

    def _padded(self, x):
        sides = list(zip(self.pads[: self.rank], self.pads[self.rank :], strict=True))
        around = [(max(p, 0), max(q, 0)) for p, q in sides]
        kept = [
            slice(max(-p, 0), n - max(-q, 0)) for n, (p, q) in zip(x.shape[2:], sides, strict=True)
        ]
        x = x[(..., *kept)]
        rim = 1.0 - np.pad(np.ones(x.shape[2:]), around)
        return np.pad(x, [(0, 0), (0, 0), *around]) + self._along(self.outside) * rim

    def __call__(self, x):
        x, space = self._padded(x), tuple(range(2, 2 + self.rank))
        x = x if self.order is None else x[:, self.order]
        steps = [slice(None, None, s) for s in (*self.strides, *self.dilations)]
        windows = sliding_window_view(x, self.extents, space)[(..., *steps)]
        taps = tuple(range(-self.rank, 0))
        width, height = self.weight.shape[1], self.weight.shape[0] // self.groups
        parts = []
        for group in range(self.groups):
            rows = self.weight[group * height :][:height]
            read = windows[:, group * width :][:, :width]
            product = np.tensordot(read, rows, axes=[(1, *taps), (1, *taps)])
            parts.append(np.moveaxis(product, -1, 1))
        return np.concatenate(parts, axis=1) + self._along(self.bias)

    def bound(self, x):
        """How far a term that was read may be off, for some x.

        A sum of n products is off by n eps of what is summed. So is each weight, which is an answer
        less the answer to zero, over a number above 1; and the output is a sum of n of them. Both
        sides have such errors, and a factor of two is left for what is of higher order.
        """
        sizes = [np.abs(part) for part in (self.weight, self.bias, self.outside)]
        largest = replace(self, weight=sizes[0], bias=sizes[1], outside=sizes[2])(np.abs(x)).max()
        terms = math.prod(self.weight.shape[1:]) + 1
        return 4 * terms * (terms + 1) * EPSILON * float(largest)


def read(respond, *shape, most=PLENTY):
    """What is read off a map at one shape, padded behind to give its size there."""
    rest = respond(np.zeros(shape))
    term = read_off(respond, shape, rest, most)
    if isinstance(term, Refusal):
        return term
    return with_ends(term, [(shape[2:], rest.shape[2:])])


def distance(term, respond, *shape):
    """The largest difference on random images of one shape."""
    x = random(*shape, seed=7)
    return np.abs(np.stack([apply(term, image) for image in x]) - respond(x)).max()


def check(textbook, *shape):
    """Reads a textbook's map, and holds the term against it; the term."""
    term = read(textbook, *shape)
    assert not isinstance(term, Refusal), term.reason
    assert distance(term, textbook, *shape) <= textbook.bound(random(*shape, seed=7))
    return term


def refusal(respond, *shape, most=PLENTY):
    term = read(respond, *shape, most=most)
    assert isinstance(term, Refusal), term
    return term.reason
