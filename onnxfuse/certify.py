"""Certificates: the replaced nodes against their replacement, in float64, on random probes.

Both sides are evaluated by `onnxfuse.reference`, which shares nothing with the algebra. The probes
have the smallest sizes at which every border and every stride phase is met; two affine maps that
agree on random inputs there agree everywhere, with probability one.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.affine import AffineConv, FixedWindow, Refusal, Size, Term
from onnxfuse.between import Between
from onnxfuse.errors import CertificateError
from onnxfuse.graph import Graph
from onnxfuse.lower import Lowered
from onnxfuse.reference import UnsupportedOperator, evaluate
from onnxfuse.regions import Candidate

TOLERANCE = 1e-10
_LARGEST_WINDOW = 6
_NUDGE = 1e-12
_ROUNDINGS = 32
_MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Certificate:
    """Proof of one fold.

    Attributes:
        error: Largest difference over the largest value of the replaced nodes' output.
        shapes: Shapes of the probes.
        stretches: Shapes at which stretches of data movement among the nodes were proved to be
            convolutions; empty where there are none.
        border: By how much, over the largest output, a constant at the border differs since padding
            values were taken for the same that differ by rounding; 0 where there are none.
        allowed: What the error may be.
    """

    error: float
    shapes: tuple[tuple[int, ...], ...]
    stretches: tuple[tuple[int, ...], ...] = ()
    border: float = 0.0
    allowed: float = TOLERANCE


def certify(
    graph: Graph,
    replaced: Between,
    lowered: Lowered,
    candidate: Candidate,
    target: str,
) -> Certificate | Refusal:
    """Compares the replaced nodes with their replacement.

    Args:
        graph: The graph around the nodes.
        replaced: What lies between source and target.
        lowered: The replacement, with its constants in float64.
        candidate: What it was made from: source, view and map.
        target: The output of both.

    Returns:
        The certificate, or a refusal where the evaluator has no safe meaning for a node.

    Raises:
        CertificateError: If they differ by more than 1e-10 of the largest output, or in shape, or
            the replacement does not take what the nodes take.
    """
    source = candidate.source
    nodes = replaced.evaluable
    read = {name for node in nodes for name in node.input}
    constants = {n: value for n in read if (value := graph.constant(n)) is not None}
    constants |= replaced.constants
    rng = np.random.default_rng(zlib.crc32(target.encode()))
    shapes, elements = [], 0
    for shape in _probe_shapes(graph, candidate):
        elements += math.prod(shape)
        if elements > _MOST_ELEMENTS:
            return Refusal("it cannot be certified: its window reaches too far")
        shapes.append(shape)
    term = candidate.term
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.type(source).elem_type)
    worst = border = 0.0
    for shape in shapes:
        probe = rng.standard_normal(shape)
        try:
            feeds = {**constants, source: probe}
            expected = evaluate(nodes, feeds, graph.opset, {target})[target]
        except UnsupportedOperator as unsupported:
            return Refusal(f"it cannot be certified: {unsupported.reason}")
        actual = _made(graph, lowered, source, target, probe)
        explained = term.border_error_of if isinstance(term, AffineConv) else None
        if explained is not None and actual.shape == expected.shape:
            rest = np.zeros(shape)
            before = evaluate(nodes, {**constants, source: rest}, graph.opset, {target})[target]
            after = _made(graph, lowered, source, target, rest)
            off = np.abs(after - before)
            gap = _border_gap(off, expected, explained(), candidate.view.axis, dtype)
            if gap is None:
                return Refusal("its padding is off by more than rounding explains")
            border = max(border, gap)
            actual = actual + (before - after)
        error = _difference(actual, expected, expected)
        if not error <= TOLERANCE:
            error *= TOLERANCE / _conditioned(graph, nodes, feeds, target, expected, rng)
        worst = max(worst, error)
    if not worst <= TOLERANCE:
        raise CertificateError(
            f"the fold into {target!r} differs from the nodes it replaces by {worst:.3g} "
            f"(allowed: {TOLERANCE:g}); nothing was written"
        )
    proofs = [probed.proof for probed in replaced.probed]
    worst = max([worst, *(proof.error for proof in proofs)])
    proved = dict.fromkeys(shape for proof in proofs for shape in proof.shapes)
    return Certificate(worst, tuple(shapes), tuple(proved), border)


def _made(
    graph: Graph, lowered: Lowered, source: str, target: str, x: NDArray[Any]
) -> NDArray[Any]:
    """What the replacement makes of x."""
    if not lowered.nodes:
        return x
    given = {**lowered.constants, source: x}
    try:
        return evaluate(lowered.nodes, given, graph.opset)[target]
    except ValueError as error:
        raise CertificateError(
            f"the fold into {target!r} does not take {source!r} of shape {list(x.shape)}: {error}; "
            "nothing was written"
        ) from error


def _border_gap(
    off: NDArray[Any],
    expected: NDArray[Any],
    explained: NDArray[Any],
    axis: int,
    dtype: np.dtype[np.generic],
) -> float | None:
    """How far apart the outputs for zeros are, where padding values were the same but for rounding.

    Two affine maps whose outputs for zeros differ by a constant are otherwise held to the usual
    tolerance. The constant has to be explained by the padding values, and to be no more than some
    roundings of the outputs in its channel.

    Args:
        off: Distance of the outputs for zeros.
        expected: Outputs for the probe.
        explained: What padding values explain, one number per channel.
        axis: The axis of the channels.
        dtype: The type in which the padding values were rounded.

    Returns:
        The largest, over the largest output of its channel; None where it is too large.
    """
    axes = tuple(a for a in range(expected.ndim) if a != axis)
    largest = np.abs(expected).max(axis=axes, initial=0.0, keepdims=True)
    allowed = explained.reshape(largest.shape) + TOLERANCE * largest
    one = np.ones((), dtype)
    rounding = float(np.nextafter(one, one + one)) - 1.0
    if np.any(off > allowed) or np.any(off > _ROUNDINGS * rounding * largest):
        return None
    return float(np.max(off / np.where(largest > 0, largest, 1.0), initial=0.0))


def _difference(actual: NDArray[Any], expected: NDArray[Any], scale: NDArray[Any]) -> float:
    """Largest difference over the largest value of `scale`; infinite where anything is not."""
    if actual.shape != expected.shape:
        return float("inf")
    if not (np.all(np.isfinite(actual)) and np.all(np.isfinite(expected))):
        return float("inf")
    largest = float(np.max(np.abs(scale), initial=0.0))
    return float(np.max(np.abs(actual - expected), initial=0.0)) / (largest or 1.0)


def _conditioned(
    graph: Graph,
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, NDArray[Any]],
    target: str,
    expected: NDArray[Any],
    rng: np.random.Generator,
) -> float:
    """The tolerance for nodes whose large terms cancel.

    Their output is held to 1e-10 of what cancels. How large that is shows when every number that
    goes in moves by 1e-12 of itself: the output then moves by about 1e-12 of its largest term.
    """
    moved = {
        name: value * (1 + _NUDGE * rng.standard_normal(value.shape))
        if value.dtype.kind not in "iub"
        else value
        for name, value in feeds.items()
    }
    beside = evaluate(nodes, moved, graph.opset, {target})[target]
    moved_by = _difference(beside, expected, expected)
    return max(TOLERANCE, TOLERANCE / _NUDGE * moved_by) if np.isfinite(moved_by) else TOLERANCE


def _probe_shapes(graph: Graph, candidate: Candidate) -> Iterator[tuple[int, ...]]:
    """Shapes for the source; what is known of it is kept where the map holds at one size only."""
    term, view = candidate.term, candidate.view
    known = graph.type(candidate.source).shape or (None,) * view.rank
    if candidate.turned is not None:
        known = candidate.turned.shape(known)
    frozen = isinstance(term, AffineConv) and term.at_size is not None
    shape = [d if frozen and isinstance(d, int) else 2 + (a > 0) for a, d in enumerate(known)]
    if view.spatial and not (frozen and isinstance(known[0], int)):
        shape[0] = 1
    transposed = isinstance(term, FixedWindow) and term.op_type == "Gemm"
    shape[0 if transposed else view.axis] = term.in_channels
    static = [d for axis in view.spatial if isinstance(d := known[axis], int)]
    last: tuple[int, ...] | None = None
    for size in _probe_sizes(term, tuple(static) if len(static) == len(view.spatial) else None):
        for axis, extent in zip(view.spatial, size, strict=True):
            held = known[axis]
            shape[axis] = held if frozen and isinstance(held, int) else extent
        turned = candidate.turned
        found = tuple(shape) if turned is None else turned.shape_in_front(tuple(shape))
        if found != last:
            yield found
        last = found


def _probe_sizes(term: Term, static: Size | None) -> Iterator[Size]:
    """Sizes at which the whole kernel fits once, with every remainder of the strides."""
    if isinstance(term, FixedWindow):
        if static is not None and "output_shape" in term.attributes:
            yield static
            return
        cropped = term.attributes.get("pads", ())
        assert isinstance(cropped, tuple)
        first = [
            min(k, _LARGEST_WINDOW) + 2 + sum(cropped[axis :: len(term.kernel)])
            for axis, k in enumerate(term.kernel)
        ]
        for phase in range(2):
            size = [n + phase + axis for axis, n in enumerate(first)]
            yield tuple(map(min, size, static or size))
        return
    if term.at_size is not None:
        yield term.at_size
        return
    for phase in range(max(term.strides, default=1)):
        yield tuple(
            max(e, e - p - q) + 1 + (phase + axis) % s
            for axis, (e, p, q, s) in enumerate(
                zip(term.extents, term.begins, term.ends, term.strides, strict=True)
            )
        )
