"""Whether an output of a runtime is as right as another's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxfuse.parity.spread import Spread, Wide, allowed_flips, flips, gap, typical, unequal
from onnxfuse.parity.truth import Leaf

SIGMAS = 2
"""Times the largest root mean square that some draw of roundings explains. Networks of models/ and
pretrained ones reach a quarter of it."""

_ANOTHER = 1e-2
"""Relative to the output: where the first model is off by more than this and more than rounding
explains, the runtime and the evaluation read an operator's definition differently. Then the first
model, as it ran, is the truth."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """The distances of two outputs from the truth.

    Attributes:
        first: Relative L2 distance of the first; the share of elements that differ, of integers.
        second: The same of the second.
        bound: By how much the second may be further off.
        reason: Why it is wrong; empty where it is not.
        believed: Whether the truth was believed: not where the first model's run is far from it.
    """

    first: float
    second: float
    bound: float
    reason: str = ""
    believed: bool = True


def judge(first: Array, second: Array, truth: Leaf, *, steps: bool = False) -> Verdict:
    """Holds both outputs against the truth.

    Args:
        first: The first model's.
        second: The second's.
        truth: What they should be.
        steps: Whether an operator before rounds to steps, such as QuantizeLinear: then elements may
            be off by a whole step where no draw shows one.
    """
    reason = unlike(first, second)
    if reason:
        return Verdict(np.nan, np.nan, 0.0, reason)
    if first.dtype.kind != "f" or truth.value.dtype.kind != "f" or truth.value.shape != first.shape:
        return _exact(first, second, truth)
    return _floating(first, second, truth, steps)


def unlike(first: Array, second: Array) -> str:
    """Why the second array cannot be compared with the first; empty where it can."""
    if second.shape != first.shape:
        return f"its shape is {_shape(second)} and not {_shape(first)}"
    if second.dtype != first.dtype:
        return f"its type is {second.dtype} and not {first.dtype}"
    return ""


def _floating(first: Array, second: Array, truth: Leaf, steps: bool) -> Verdict:
    target = truth.value
    skipped = _overflowing(target, first, second)
    ours, theirs = _distances(target, first, second, skipped)
    fitting = [draw for draw in truth.draws if draw.shape == target.shape]
    gaps = [gap(draw, target) for draw in fitting]
    noise = [Spread.of(np.where(np.isfinite(one), one, 0.0)) for one in gaps]
    explained = Spread.largest(noise) if noise else Spread.of(np.zeros(first.shape))
    size = Spread.of(np.where(np.isfinite(target), target, 0.0)).whole or 1.0
    least = 4 * float(np.finfo(first.dtype).tiny)
    step = max((float(np.abs(one[np.isfinite(one)]).max(initial=0.0)) for one in gaps), default=0.0)
    step = step if steps else 0.0
    bound = 2 * SIGMAS * explained.whole + least + step * _stepping(first.size)
    believed = ours.whole <= bound + _ANOTHER * size
    if not believed:
        target = first.astype(np.float64)
        ours, theirs = _distances(target, first, second, np.zeros(first.shape, bool))
    channel = _beyond(ours, theirs, explained, least, step, first.shape)
    reason = ""
    if not theirs.whole <= ours.whole + bound or channel is not None:
        where = "" if channel is None else f" in channel {channel}"
        reason = f"it is further from the truth{where} than rounding explains"
        if not np.isfinite(theirs.whole):
            reason = "it has NaN or infinity where it should not"
    return Verdict(ours.whole / size, theirs.whole / size, bound / size, reason, believed)


def _distances(
    target: Wide, first: Array, second: Array, skipped: NDArray[np.bool_]
) -> tuple[Spread, Spread]:
    ours, theirs = (
        Spread.of(np.where(skipped, 0.0, gap(output, target))) for output in (first, second)
    )
    return ours, theirs


def _stepping(elements: int) -> float:
    """Root mean square of elements of which one, or one in a hundred, is 1 and the others are 0."""
    return max(elements**-0.5, 0.1) if elements else 0.0


def _beyond(
    ours: Spread,
    theirs: Spread,
    explained: Spread,
    least: float,
    step: float,
    shape: tuple[int, ...],
) -> int | None:
    """The channel in which the second is further off than explained, by most; or None."""
    for axis, values in theirs.slices.items():
        rounded = explained.slices[axis] + typical(explained, axis)
        apart = step * _stepping(math.prod(shape) // max(shape[axis], 1))
        limit = ours.slices[axis] + SIGMAS * rounded + least + apart
        with np.errstate(all="ignore"):
            over = np.where(values <= limit, 0.0, values / limit)
        if over.any():
            return int(np.argmax(over))
    return None


def _overflowing(truth: Wide, first: Array, second: Array) -> NDArray[np.bool_]:
    """Elements that tell nothing, since numbers overflow in the type that the models compute in.

    That is where the first model itself overflowed, and where both are next to the largest number,
    or beyond it on the same side.
    """
    limit = float(np.finfo(first.dtype).max) / 4
    with np.errstate(all="ignore"):
        own, other = first.astype(np.float64), second.astype(np.float64)
        near = (np.abs(truth) > limit) & (np.abs(own) > limit) & (np.abs(other) > limit)
        skipped: NDArray[np.bool_] = near & (np.sign(own) == np.sign(other))
        skipped |= np.isfinite(truth) & ~np.isfinite(own)
    return skipped


def _exact(first: Array, second: Array, truth: Leaf) -> Verdict:
    """Integers, booleans and strings, and what has no truth of its type."""
    different = unequal(first, second)
    moved = np.zeros(first.shape, bool)
    fits = truth.value.shape == first.shape and truth.value.dtype.kind == first.dtype.kind
    if fits:
        for one in (first, *truth.draws):
            if one.shape == first.shape:
                moved |= unequal(one, truth.value)
    other = unequal(second, truth.value) if fits else different
    own = unequal(first, truth.value) if fits else np.zeros(first.shape, bool)
    computed = bool(truth.draws)
    reason = ""
    if flips(different, moved, computed).ratio > 1:
        reason = f"{int(different.sum())} of {different.size} elements differ"
    bound = (int(moved.sum()) + allowed_flips(moved, computed)) / max(different.size, 1)
    return Verdict(_share(own), _share(other), bound, reason)


def _share(elements: NDArray[np.bool_]) -> float:
    return float(np.mean(elements)) if elements.size else 0.0


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape)) or "a scalar"
