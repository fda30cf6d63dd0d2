"""Proof that a stretch is the convolution read off it: both on random inputs, in float64."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxfuse.affine import AffineConv, Array, Refusal
from onnxfuse.graph import Graph
from onnxfuse.lift import View
from onnxfuse.lower import Lowered, lower
from onnxfuse.probe.impulse import DEPENDS
from onnxfuse.probe.run import Load, Run
from onnxfuse.probe.stretch import Stretch
from onnxfuse.reference import evaluate

TOLERANCE = 1e-10
_MOST_COLUMNS = 1 << 26


@dataclass(frozen=True)
class Proof:
    """A convolution, proved to be what a stretch computes.

    Attributes:
        term: The convolution.
        stand_in: Nodes for it, from the stretch's source to its target, constants in float64.
        error: Largest difference over the largest value in the same channel, of what the map makes
            of zero and of what an input adds to it.
        shapes: Shapes of the random inputs.
        loads: What the tensors of the stretch take at the first of them.
    """

    term: AffineConv
    stand_in: Lowered
    error: float
    shapes: tuple[tuple[int, ...], ...]
    loads: Mapping[str, Load]


def prove(graph: Graph, runs: Sequence[Run], term: AffineConv, view: View) -> Proof | Refusal:
    """Compares a stretch with a convolution at every size at which it runs.

    Args:
        graph: The graph around it.
        runs: The stretch at those sizes.
        term: The convolution.
        view: How source and target are read.
    """
    stretch = runs[0].stretch
    stand_in = lower(graph, term, view, stretch.source, stretch.target)
    rng = np.random.default_rng(zlib.crc32(stretch.target.encode()))
    worst = 0.0
    for run in runs:
        taps = max((math.prod(v.shape[2:]) for v in stand_in.constants.values()), default=1)
        places = max(math.prod(run.shape[2:]), math.prod(run.rest.shape[2:]))
        if math.prod(run.shape[:2]) * places * taps > _MOST_COLUMNS:
            return Refusal("its kernel and image are too large to be compared")
        x = rng.standard_normal(run.shape)
        rest, moved = (_made(graph, stand_in, stretch, x) for x in (np.zeros(run.shape), x))
        if rest.shape != run.rest.shape:
            return Refusal("the size of its output does not follow from that of its input")
        steady = _off(rest, run.rest)
        varying = _off(moved - rest, run(x) - run.rest)
        off = np.maximum(steady, varying)
        if not np.all(off <= TOLERANCE):
            return _difference(term, run.shape[2:], off)
        worst = max(worst, float(off.max(initial=0.0)))
    return Proof(term, stand_in, worst, tuple(run.shape for run in runs), runs[0].loads)


def _made(graph: Graph, stand_in: Lowered, stretch: Stretch, x: Array) -> Array:
    """What the nodes of the convolution make of x."""
    if not stand_in.nodes:
        return x
    given = {**stand_in.constants, stretch.source: x}
    return np.asarray(evaluate(stand_in.nodes, given, graph.opset)[stretch.target])


def _off(actual: Array, expected: Array) -> Array:
    """Differences over the largest value in the same channel."""
    axes = (0, *range(2, expected.ndim))
    largest = np.abs(expected).max(axis=axes, initial=0.0, keepdims=True)
    return np.asarray(np.abs(actual - expected) / np.where(largest > 0, largest, 1.0))


def _difference(term: AffineConv, size: tuple[int, ...], off: Array) -> Refusal:
    """What kind of map it is instead, from where it differs."""
    inside = np.ones(off.shape[2:], dtype=bool)
    for axis, n in enumerate(size):
        first = term.strides[axis] * np.arange(off.shape[2 + axis]) - term.begins[axis]
        within = (first >= 0) & (first + term.extents[axis] <= n)
        inside &= within.reshape(-1, *(1,) * (term.rank - 1 - axis))
    if np.any(off[:, :, inside] > TOLERANCE):
        return Refusal(DEPENDS)
    return Refusal(
        "its border is not padded with one value per channel: "
        "a roll, or reflected or repeated padding"
    )
