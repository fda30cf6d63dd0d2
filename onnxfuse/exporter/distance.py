"""How far two arrays are apart, and how far they may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxfuse.graph import Array

Wide = NDArray[np.float64]

RATIO = 10
"""Allowed over the yardstick, which is a sample or two of errors of its size."""

FLOOR = 64
"""Roundoffs that are allowed where PyTorch happened to be exact: approximations of exp, erf and
tanh in the two differ by some ten."""

CONSTANTS = 2.0**-24
"""Attributes of ONNX operators, such as an epsilon, are float32 in a model of float64 too."""

WITHOUT_YARDSTICK = 4096
"""Roundoffs that are allowed where there is no yardstick; the deepest networks of models/ are below
100."""

LOOSEST = 0.1
"""No rounding explains more: what amplifies it so far has no result to compare."""

SLICE_RATIO = 1000
"""Allowed over the yardstick in one slice, which may be one number: its yardstick is nearly random,
and this is for what is wrong altogether beside larger numbers."""

FLIPPED = 0.01
"""Share of an integer or boolean output that rounding may change, as in an argmax."""


def distance(actual: Array, expected: Array) -> tuple[float, float]:
    """Relative L2, or the share of unequal elements, and the largest absolute difference.

    Infinite where shapes or element types differ, or where one is not finite and the other is
    something else.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return np.inf, np.inf
    if not actual.size:
        return 0.0, 0.0
    if expected.dtype.kind != "f":
        unequal = actual != expected
        gaps = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        return float(np.mean(unequal)), float(gaps.max())
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    if not np.isfinite(actual[~same]).all() or not np.isfinite(expected[~same]).all():
        return np.inf, np.inf
    gaps, truth = _gaps(actual, expected, same)
    return _relative(gaps, truth), float(np.abs(gaps).max())


def rounding(expected: Array, rounded: Sequence[Array]) -> float | None:
    """The largest distance to the same output with other roundings; None where there is none.

    Numbers that overflow in one of the two tell nothing, and are left out.
    """
    found: list[float] = []
    for other in rounded:
        if other.shape != expected.shape:
            continue
        if "f" not in (expected.dtype.kind, other.dtype.kind):
            found.append(float(np.mean(other != expected)) if expected.size else 0.0)
            continue
        finite = np.isfinite(other) & np.isfinite(expected)
        gaps, truth = _gaps(expected, other, ~finite)
        found.append(_relative(gaps, truth))
    return max(found, default=None)


def bound(expected: Array, measured: float | None, exact: bool) -> float:
    """What the distance to an output may be.

    Args:
        expected: The output.
        measured: Its rounding.
        exact: Whether nothing is rounded, since no input is of a floating type.
    """
    if expected.dtype.kind != "f":
        return 0.0 if exact and not measured else max(FLIPPED, RATIO * (measured or 0.0))
    roundoff = float(np.finfo(str(expected.dtype)).eps) / 2
    if measured is None:
        return WITHOUT_YARDSTICK * roundoff
    return min(max(FLOOR * roundoff, CONSTANTS, RATIO * measured), LOOSEST)


def worst_slice(actual: Array, expected: Array, rounded: Sequence[Array]) -> str | None:
    """A slice of the output, along an axis of channels, that is wrong altogether, or None.

    Large numbers in other channels hide it from the distance of the whole.
    """
    if expected.dtype.kind != "f" or expected.ndim < 2 or not expected.size:
        return None
    slack = max(WITHOUT_YARDSTICK * float(np.finfo(str(expected.dtype)).eps) / 2, CONSTANTS)
    finite = np.isfinite(actual) & np.isfinite(expected)
    others = [o for o in rounded if o.shape == expected.shape and o.dtype.kind == "f"]
    for axis in {1, expected.ndim - 1}:
        rest = tuple(a for a in range(expected.ndim) if a != axis)
        gaps, truth = _gaps(actual, expected, ~finite)
        allowed = slack * np.sqrt(np.sum(truth**2, axis=rest))
        for other in others:
            known = finite & np.isfinite(other)
            moved, _ = _gaps(expected, other, ~known)
            ratio = SLICE_RATIO * np.sqrt(np.sum(moved**2, axis=rest))
            allowed = np.maximum(allowed, ratio)
        over = np.sqrt(np.sum(gaps**2, axis=rest)) > allowed
        if others and over.any():
            return f"[{int(np.argmax(over))}] along axis {axis}"
    return None


def _gaps(actual: Array, expected: Array, same: Array) -> tuple[Wide, Wide]:
    """Differences, and what they are relative to, in float64; 0 for both where `same`."""
    with np.errstate(all="ignore"):
        wide, truth = actual.astype(np.float64), expected.astype(np.float64)
        gaps = np.where(same, 0.0, wide - truth)
    return gaps, np.where(np.isfinite(truth), truth, 0.0)


def _relative(gaps: Wide, truth: Wide) -> float:
    largest = float(np.abs(truth).max(initial=0.0)) or 1.0
    norm = float(np.linalg.norm(truth / largest))
    return float(np.linalg.norm(gaps / largest)) / (norm or 1.0)
