"""Proof that a stretch is the convolution read off it: both on random inputs, in float64."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxfuse.affine import AffineConv, Array, Refusal
from onnxfuse.graph import Graph
from onnxfuse.lift import View
from onnxfuse.lower import Lowered, lower
from onnxfuse.probe.run import Run
from onnxfuse.reference import evaluate

TOLERANCE = 1e-10
_MOST_COLUMNS = 1 << 26


@dataclass(frozen=True)
class Proof:
    """A convolution, proved to be what a stretch computes.

    Attributes:
        term: The convolution.
        stand_in: Nodes for it, from the stretch's source to its target, constants in float64.
        error: Largest difference over the largest output.
        shapes: Shapes of the random inputs.
    """

    term: AffineConv
    stand_in: Lowered
    error: float
    shapes: tuple[tuple[int, ...], ...]


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
        taps = math.prod(stand_in.term.kernel)
        if math.prod(run.shape) * taps > _MOST_COLUMNS:
            return Refusal("its kernel and image are too large to be compared")
        x = rng.standard_normal(run.shape)
        expected, actual = run(x), x
        if stand_in.nodes:
            given = {**stand_in.constants, stretch.source: x}
            actual = evaluate(stand_in.nodes, given, graph.opset)[stretch.target]
        if actual.shape != expected.shape:
            return Refusal("the size of its output does not follow from that of its input")
        largest = float(np.abs(expected).max(initial=0.0)) or 1.0
        off = np.abs(actual - expected) / largest
        if not np.all(off <= TOLERANCE):
            return _difference(term, run.shape[2:], off)
        worst = max(worst, float(off.max(initial=0.0)))
    return Proof(term, stand_in, worst, tuple(run.shape for run in runs))


def _difference(term: AffineConv, size: tuple[int, ...], off: Array) -> Refusal:
    """What kind of map it is instead, from where it differs."""
    inside = np.ones(off.shape[2:], dtype=bool)
    for axis, n in enumerate(size):
        first = term.strides[axis] * np.arange(off.shape[2 + axis]) - term.begins[axis]
        within = (first >= 0) & (first + term.extents[axis] <= n)
        inside &= within.reshape(-1, *(1,) * (term.rank - 1 - axis))
    if np.any(off[:, :, inside] > TOLERANCE):
        return Refusal("its weights depend on the position (such as a mask)")
    return Refusal(
        "its border is not padded with one value per channel "
        "(such as a roll, or reflected or repeated padding)"
    )
