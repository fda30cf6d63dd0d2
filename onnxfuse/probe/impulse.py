"""An affine map read off its answers to impulses, as a convolution; numpy alone.

An affine map is known by what it makes of zero and of a basis. Zero gives the bias and what the
border is filled with. One impulse shows the kernel, turned around; the same impulse a stride
further along shows itself one output further along. In an impulse every channel carries its own
random number, so where each output channel reads one input channel, two impulses tell which, and
by what factor. Otherwise the channels are taken one by one, many in one image where there is room.

What comes out is a hypothesis: whoever asks has to compare it with the map on random inputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from onnxfuse.affine import AffineConv, Array, Refusal, Size, affine_conv, padded_with
from onnxfuse.probe.border import bias_and_outside
from onnxfuse.probe.frame import Frame, Indices

Respond = Callable[[Array], Array]
Shot = tuple[Size, Array]
"""An impulse: its position, and its value in each channel."""

_LARGEST_STRIDE = 32
_FEW_PIXELS = 64
_LONG = 16
_MOST_WEIGHTS = 1 << 24
_MOST_COLUMNS = 1 << 26
_MOST_DENSE = 1 << 28
_NOISE = 1e-9  # of a channel's largest answer; an answer below is none
_ROUNDING = 1e-14  # of what a channel is without any
DEPENDS = "what it does depends on the position, as a mask does"
TOO_MUCH = "reading it off would take more work than it may"


def likely_strides(size: Size, out_size: Size) -> Size:
    """The strides that the sizes of an input and its output speak for."""
    return tuple(max(1, round(n / m)) for n, m in zip(size, out_size, strict=True))


def read_off(
    respond: Respond,
    shape: tuple[int, ...],
    rest: Array,
    most: int,
    strides: Size | None = None,
) -> AffineConv | Refusal:
    """The convolution that answers zero and impulses as `respond` does.

    Args:
        respond: An affine map from (N, C, *S) to (N, C', *S'), in float64.
        shape: (N, C, *S).
        rest: What it makes of zeros.
        most: How often the map may be evaluated.
        strides: Strides to take for granted; None: measure them, which takes longer and tells more
            of a map that is no convolution.

    Returns:
        The hypothesis, with the least padding behind, or why there is none.
    """
    return _Reader(respond, shape, rest, most).term(strides)


def with_ends(term: AffineConv, sizes: Sequence[tuple[Size, Size]]) -> AffineConv | Refusal:
    """The term, padded behind so that every size of an input gives the size of its output.

    Args:
        term: The term; its padding behind is not read.
        sizes: Spatial sizes (of the input, of the output).

    Returns:
        The term with, of the paddings that do, the one nearest to the padding in front.
    """
    ends = []
    for axis in range(term.rank):
        span, stride, begin = term.extents[axis], term.strides[axis], term.begins[axis]
        least = [(m[axis] - 1) * stride + span - n[axis] - begin for n, m in sizes]
        low, high = max(least), min(least) + stride - 1
        if low > high:
            return Refusal("the size of its output does not follow from that of its input")
        ends.append(min(max(begin, low), high))
    return replace(term, pads=(*term.begins, *ends))


class _Reader:
    """One map that is being read; `rest` is its answer to zero, (N, C', *S')."""

    def __init__(self, respond: Respond, shape: tuple[int, ...], rest: Array, most: int) -> None:
        self.respond, self.shape, self.rest, self.left = respond, shape, rest, most
        self.batch, self.channels = shape[:2]
        self.size: Size = shape[2:]
        self.out_size: Size = self.rest.shape[2:]
        self._last: tuple[Size, Array] | None = None
        self.random = np.random.default_rng(len(shape)).uniform(1.0, 2.0, (2, self.channels))

    def term(self, strides: Size | None) -> AffineConv | Refusal:
        if self.rest.ndim != len(self.shape) or self.rest.shape[0] != self.batch:
            return Refusal("its output is not an image for each image of its input")
        if not np.all(np.isfinite(self.rest)):
            return Refusal("its constants are not finite")
        if max(self.out_size, default=0) == 1 and math.prod(self.size) > _FEW_PIXELS:
            return Refusal("its window is the whole image, which is too much for a weight")
        if self._start is None:
            return Refusal("no output depends on the middle of its input")
        mixed = self._mixed_axis(self._start)
        if mixed is not None:
            return Refusal(f"it mixes all positions along axis {mixed + 2}")
        found = self._strides(self._start) if strides is None else strides
        if isinstance(found, Refusal):
            return found
        frame = self._frame(self._start, found)
        if isinstance(frame, Refusal):
            return frame
        if not frame.taps:
            return Refusal("what it makes of an impulse is lost beside its constants")
        if len(frame.taps) * math.prod(self.shape) > _MOST_COLUMNS:
            return Refusal(TOO_MUCH)
        if len(frame.taps) * self.channels * self.rest.shape[1] > _MOST_DENSE:
            return Refusal(TOO_MUCH)
        weights = self._collected(frame, self.random)
        if isinstance(weights, Refusal):
            return weights
        taps: Array | Refusal | None = _one_channel_each(
            weights, self.random, _ROUNDING * _loudness(self.rest[0])
        )
        if taps is None:
            taps = self._collected(frame, np.eye(self.channels))
        return taps if isinstance(taps, Refusal) else self._settled(frame, taps)

    # Impulses ----------------------------------------------------------------------------------

    def _answers(self, volleys: Sequence[Sequence[Shot]]) -> Iterator[Array]:
        """The answers, less the answer to zero, to one image for each volley; (C', *S') each."""
        for first in range(0, len(volleys), self.batch):
            part = volleys[first : first + self.batch]
            x = np.zeros(self.shape)
            for image, volley in enumerate(part):
                for position, channels in volley:
                    _column(x[image], position)[:] = channels
            y = self.respond(x) - self.rest
            yield from y[: len(part)]

    def _answer(self, position: Size) -> Array:
        """The answer to one impulse; that to the last one is kept."""
        if self._last is None or self._last[0] != position:
            (answer,) = self._answers([[(position, self.random[0])]])
            self._last = position, answer
        return self._last[1]

    # Geometry ----------------------------------------------------------------------------------

    @cached_property
    def _start(self) -> Size | None:
        """A position near the middle that some output depends on."""
        middle = [(n - 1) // 2 for n in self.size]
        steps = [max(3, s) for s in likely_strides(self.size, self.out_size)]
        near = (range(m, min(m + s, n)) for m, s, n in zip(middle, steps, self.size, strict=True))
        return next((p for p in itertools.product(*near) if np.any(self._answer(p))), None)

    def _mixed_axis(self, start: Size) -> int | None:
        """A long axis along which one input reaches every output, as in a product over it."""
        heard = np.any(self._answer(start), axis=0)
        for axis, m in enumerate(self.out_size):
            others = tuple(other for other in range(heard.ndim) if other != axis)
            if m > _LONG and np.all(np.any(heard, axis=others)):
                return axis
        return None

    def _strides(self, start: Size) -> Size | Refusal:
        home = self._answer(start)
        found: list[int] = []
        for axis, (position, n) in enumerate(zip(start, self.size, strict=True)):
            steps = range(1, min(n - position, _LARGEST_STRIDE + 1))
            if self.out_size[axis] == 1 or not steps:
                found.append(1)
                continue
            for step in steps:
                moved = (*start[:axis], position + step, *start[axis + 1 :])
                answer = self._answer(moved)
                if _is_shifted(home, answer, axis + 1, 1):
                    found.append(step)
                    break
                if step == 1 and _is_shifted(home, answer, axis + 1, -1):
                    return Refusal(f"it runs backwards along axis {axis + 2}: a flip")
                if step == 1 and any(_is_shifted(home, answer, axis + 1, by) for by in range(2, 9)):
                    return Refusal(f"it widens axis {axis + 2}: a resize or upsampling")
            else:
                return Refusal(DEPENDS)
        return tuple(found)

    def _frame(self, start: Size, strides: Size) -> Frame | Refusal:
        """Kernel and padding in front, from an impulse in every phase of the strides."""
        steps = [
            (range(n) if math.prod(self.size) <= _FEW_PIXELS else [*range(p, n), *range(p)][:s])
            for p, n, s in zip(start, self.size, strides, strict=True)
        ]
        count = math.prod(map(len, steps))
        if count > self.left * self.batch or count * self.rest[0].size > _MOST_COLUMNS:
            return Refusal(TOO_MUCH)
        positions = list(itertools.product(*steps))
        taps: set[Size] = set()
        if len(positions) == 1:
            answers = [self._answer(positions[0])]
        else:
            answers = list(self._answers([[(p, self.random[0])] for p in positions]))
        loudest = np.max([_loudness(answer) for answer in answers], axis=0)
        least = np.maximum(_NOISE * loudest, _ROUNDING * _loudness(self.rest[0]))
        for position, answer in zip(positions, answers, strict=True):
            heard = np.abs(answer) > least.reshape(-1, *(1,) * len(self.size))
            for q in np.argwhere(np.any(heard, axis=0)).tolist():
                taps.add(tuple(p - s * i for p, s, i in zip(position, strides, q, strict=True)))
        return Frame(strides, tuple(sorted(taps)), self.size, self.out_size)

    # Weights -----------------------------------------------------------------------------------

    def _collected(self, frame: Frame, vectors: Array) -> Array | Refusal:
        """What each tap makes of vectors over the channels (V, C): (taps, V, C')."""
        places = frame.places()
        if places is None:
            return Refusal("its kernel is too large for its image")
        slots, positions = places
        shots = [(number, p) for number in range(len(vectors)) for p in positions]
        volleys = [shots[i : i + len(slots)] for i in range(0, len(shots), len(slots))]
        if len(volleys) > self.left * self.batch:
            return Refusal(TOO_MUCH)
        found = np.zeros((len(frame.taps), len(vectors), self.rest.shape[1]))
        readers: dict[Size, tuple[Indices, Indices]] = {}
        fired = (
            [(_plus(p, slot), vectors[v]) for (v, p), slot in zip(volley, slots, strict=False)]
            for volley in volleys
        )
        for volley, answer in zip(volleys, self._answers(list(fired)), strict=True):
            for (number, position), slot in zip(volley, slots, strict=False):
                place = _plus(position, slot)
                if place not in readers:
                    readers[place] = frame.readers(place)
                taps, outputs = readers[place]
                found[taps, number] = answer.reshape(len(answer), -1)[:, outputs].T
        return found

    def _settled(self, frame: Frame, taps: Array) -> AffineConv | Refusal:
        """The term, from its taps (taps, C, C')."""
        groups = _depthwise_groups(taps)
        channels, out_channels = taps.shape[1:]
        width = channels // groups
        if out_channels * width * math.prod(frame.kernel) > _MOST_WEIGHTS:
            return Refusal(TOO_MUCH)
        border = bias_and_outside(frame, taps, self.rest[0])
        if isinstance(border, Refusal):
            return border
        bias, outside = border
        rows = np.arange(out_channels)
        weight = np.zeros((out_channels, width, *frame.kernel))
        for number, cell in enumerate(frame.cells):
            block = taps[number, :, :].T
            if groups > 1:
                block = block[rows, rows // (out_channels // groups)][:, None]
            weight.reshape(out_channels, width, -1)[:, :, _flat(frame.kernel, cell)] = block
        used = np.count_nonzero(taps, axis=(0, 1))
        moves = np.all(used == 1) and np.all(np.isin(taps, (0.0, 1.0))) and not np.any(bias)
        term = affine_conv(
            weight,
            bias if np.any(bias) else None,
            strides=frame.strides,
            dilations=frame.dilations,
            pads=(*frame.begins, *(0,) * len(frame.begins)),
            groups=groups,
        )
        return padded_with(replace(term, is_selective=True, is_movement=bool(moves)), outside)


def _loudness(image: Array) -> Array:
    """The largest magnitude in each channel (C,) of an image (C, *S)."""
    return np.asarray(np.abs(image.reshape(len(image), -1)).max(axis=1, initial=0.0))


def _column(image: Array, position: Size) -> Array:
    """The channels (C,) of an image (C, *S) at a position; a view."""
    return image.reshape(len(image), -1)[:, _flat(image.shape[1:], position)]


def _flat(shape: Size, position: Size) -> int:
    return int(np.ravel_multi_index(position, shape)) if shape else 0


def _plus(position: Size, offset: Size) -> Size:
    return tuple(p + o for p, o in zip(position, offset, strict=True))


def _is_shifted(home: Array, answer: Array, axis: int, by: int) -> bool:
    """True when the answer is `home`, `by` outputs further along an axis, as far as both show."""
    size = home.shape[axis]
    if abs(by) >= size:
        return False
    low, high = np.arange(size - abs(by)), np.arange(abs(by), size)
    source, goal = (low, high) if by > 0 else (high, low)
    before, after = home.take(source, axis), answer.take(goal, axis)
    scale = float(np.abs(home).max())
    shown = bool(np.any(np.abs(before) > _NOISE * scale))
    return shown and bool(np.all(np.abs(before - after) <= _NOISE * scale))


def _one_channel_each(answers: Array, vectors: Array, floor: Array) -> Array | None:
    """Taps (taps, C, C') that read one channel for each output, from two answers; None: more.

    Args:
        answers: What each tap makes of two vectors, (taps, 2, C').
        vectors: The vectors, (2, C).
        floor: What is no answer, (C',).
    """
    first, second = answers[:, 0], answers[:, 1]
    present = np.abs(first) > np.maximum(_NOISE * np.abs(answers).max(axis=(0, 1)), floor)
    ratios = vectors[1] / vectors[0]
    order = np.argsort(ratios)
    seen = second[present] / first[present]
    spot = np.searchsorted(ratios[order], seen).clip(1, len(order) - 1) if len(order) > 1 else 0
    below, above = order[np.maximum(spot - 1, 0)], order[spot]
    nearer = np.abs(ratios[below] - seen) <= np.abs(ratios[above] - seen)
    channel = np.where(nearer, below, above)
    if np.any(np.abs(ratios[channel] - seen) > _NOISE * seen):
        return None
    taps = np.zeros((len(first), vectors.shape[1], first.shape[1]))
    tap, output = np.nonzero(present)
    taps[tap, channel, output] = first[present] / vectors[0][channel]
    return taps


def _depthwise_groups(taps: Array) -> int:
    """C where output channel o reads input channel o // (C' / C) alone, else 1."""
    channels, out_channels = taps.shape[1:]
    if out_channels % channels:
        return 1
    own = np.arange(out_channels) // (out_channels // channels)
    used = np.any(taps, axis=0)
    used[own, np.arange(out_channels)] = False
    return 1 if used.any() else channels
