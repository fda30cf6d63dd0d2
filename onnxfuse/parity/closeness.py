"""Figures of how close two arrays are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxfuse.parity.result import ULP_BINS, Closeness
from onnxfuse.parity.spread import gap, unequal

RTOL, ATOL = 1e-3, 1e-5
_EDGES = (0, 1, 2, 4, 8, 16, 64, 256, 4096)
assert len(_EDGES) == len(ULP_BINS)


def closeness(first: NDArray[Any], second: NDArray[Any]) -> Closeness:
    """How close the second array is to the first; see `Closeness`.

    Args:
        first: An array of any shape and type.
        second: One of the same shape and type.
    """
    first, second = np.atleast_1d(first), np.atleast_1d(second)
    if first.dtype.kind not in "fiub" or not first.size:
        share = float(np.mean(unequal(first, second))) if first.size else 0.0
        return Closeness(0.0, 0.0, share, None, None, None, 1.0 - share, ())
    if first.dtype.kind != "f":
        return _of_integers(first, second)
    difference = np.abs(gap(second, first))
    size = np.abs(np.where(np.isfinite(first), first, 0).astype(np.float64))
    other = np.where(np.isfinite(second), second, 0).astype(np.float64)
    with np.errstate(all="ignore"):
        relative = np.where(difference > 0, difference / size, 0.0)[size > 0]
        near = (difference <= ATOL + RTOL * size) & np.isfinite(difference)
    error, norm = _norm(difference), _norm(size)
    return Closeness(
        max_abs=float(difference.max()),
        max_rel=float(relative.max(initial=0.0)),
        relative_l2=error / norm if norm else error,
        snr_db=20 * math.log10(norm / error) if 0 < error < math.inf and norm else None,
        cosine=_cosine(np.where(np.isfinite(first), first, 0).astype(np.float64), other),
        top1=_top1(first, second),
        within=float(np.mean(near)),
        ulps=_histogram(_ulps(first, second)),
    )


def _of_integers(first: NDArray[Any], second: NDArray[Any]) -> Closeness:
    different = first != second
    share = float(np.mean(different))
    size = np.abs(first.astype(np.float64))
    difference = np.abs(second.astype(np.float64) - first.astype(np.float64))
    relative = difference[size > 0] / size[size > 0]
    return Closeness(
        max_abs=float(difference.max()),
        max_rel=float(relative.max(initial=0.0)),
        relative_l2=share,
        snr_db=None,
        cosine=None,
        top1=None,
        within=1.0 - share,
        ulps=(),
    )


def _norm(values: NDArray[np.float64]) -> float:
    largest = float(values.max(initial=0.0))
    if not 0.0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(values / largest))


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    ours, theirs = float(np.abs(first).max()), float(np.abs(second).max())
    if not ours or not theirs:
        return None
    x, y = (first / ours).ravel(), (second / theirs).ravel()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def _top1(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    if first.ndim != 2 or first.shape[1] < 2:
        return None
    return float(np.mean(first.argmax(1) == second.argmax(1)))


def _ulps(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.uint64]:
    """Distances in units in the last place; the largest integer where one alone is NaN."""
    ours, theirs = _ordered(first), _ordered(second)
    distance = np.maximum(ours, theirs) - np.minimum(ours, theirs)
    nans = np.isnan(first), np.isnan(second)
    distance[nans[0] & nans[1]] = 0
    distance[nans[0] ^ nans[1]] = np.iinfo(np.uint64).max
    return distance


def _ordered(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Unsigned integers in the order of the numbers, neighbours one apart, both zeros equal."""
    bits = 8 * values.dtype.itemsize
    raw = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").astype(np.uint64)
    middle = np.uint64(1 << (bits - 1))
    ordered: NDArray[np.uint64] = np.where(
        raw & middle, middle - (raw ^ middle), middle + raw
    ).reshape(values.shape)
    return ordered


def _histogram(distances: NDArray[np.uint64]) -> tuple[int, ...]:
    places = np.searchsorted(np.array(_EDGES, np.uint64), distances.ravel(), side="right") - 1
    return tuple(np.bincount(places, minlength=len(_EDGES)).tolist())
