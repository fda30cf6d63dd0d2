"""Proofs of channels that are scaled and shifted, node by node.

    N(r x + p) = s N(x) + q

for every node that reads or makes a changed tensor, with the constants that it has then. What a
model is given is not changed, and neither is what it gives back, so the nodes together compute what
they did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxfuse.affine import Array, Refusal
from onnxfuse.certify import TOLERANCE, Certificate
from onnxfuse.errors import CertificateError
from onnxfuse.graph import Graph
from onnxfuse.reference import evaluate
from onnxfuse.rewrites.probes import probes

FEW_VALUES = 1 << 12
"""Of a probe; a larger image shows no more."""


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of a tensor: scale * x + shift, along one axis.

    Attributes:
        axis: The axis of the channels.
        scale: (C,).
        shift: (C,).
    """

    axis: int
    scale: Array
    shift: Array

    def of(self, value: NDArray[Any]) -> Array:
        """The tensor, changed."""
        return self.scaled(value) + self._along(self.shift, value)

    def scaled(self, value: NDArray[Any]) -> Array:
        """The tensor in front of the shift."""
        return np.asarray(value * self._along(self.scale, value))

    def reached(self, value: NDArray[Any]) -> Array:
        """Random numbers of a tensor, as large as one has to be for such a shift to be of use."""
        return np.asarray(value * self._along(np.maximum(np.abs(self.shift), 1.0), value))

    def _along(self, numbers: Array, value: NDArray[Any]) -> Array:
        shape = [-1 if axis == self.axis else 1 for axis in range(value.ndim)]
        return numbers.reshape(shape)


@dataclass(frozen=True, eq=False)
class Between:
    """Between what a tensor always is, in each channel, which are on axis 1.

    Attributes:
        low: (C,); -inf where nothing is known.
        high: (C,); inf where nothing is known.
    """

    low: Array
    high: Array

    def within(self, value: NDArray[Any]) -> Array:
        """Random numbers of a tensor, made to be between."""
        shape = [-1 if axis == 1 else 1 for axis in range(value.ndim)]
        low, high = self.low.reshape(shape), self.high.reshape(shape)
        with np.errstate(invalid="ignore"):
            above, inside = low + np.abs(value), low + (high - low) * (np.abs(value) % 1.0)
        return np.where(np.isfinite(low), np.where(np.isfinite(high), inside, above), value)

    def holds(self, value: NDArray[Any]) -> bool:
        """True where a tensor is above its lower limits, but for rounding."""
        others = tuple(axis for axis in range(value.ndim) if axis != 1)
        room = TOLERANCE * _largest(value, others)
        return bool(np.all(np.min(value, axis=others) >= self.low - room))


def certify_changed(
    graph: Graph,
    index: int,
    changes: Mapping[str, Change],
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    limits: Mapping[str, Between] | None = None,
) -> Certificate | Refusal:
    """Compares a node on changed inputs with what it made before, changed, in float64.

    Args:
        graph: The graph around the node.
        index: The node's.
        changes: Those of the tensors around it.
        before: Constants that are not as the graph has them, by name, in float64.
        after: Constants that it has now, by the names of the old ones, in float64.
        limits: Between what tensors always are; where the node makes one, it is held to that.

    Returns:
        The certificate, whose error is relative to the largest value of each channel, in front of a
        shift or behind it; or why there is none.

    Raises:
        CertificateError: They differ by more than 1e-10, or the node leaves a limit.
    """
    node, limits = graph.nodes[index], limits or {}
    label = node.name or node.output[0]
    source = next(name for name in graph.data(index) if name in node.input)
    axis = changes[source].axis if source in changes else 1
    given = probes(graph, source, (index,), axis, whole=FEW_VALUES)
    if isinstance(given, Refusal):
        return given
    old = {n: np.asarray(graph.constant(n)) for n in node.input if n and graph.is_constant(n)}
    worst = 0.0
    for probe in given:
        large = {n: changes[n].reached(v) if n in changes else v for n, v in probe.items()}
        held = {n: limits[n].within(v) if n in limits else v for n, v in large.items()}
        moved = {n: changes[n].of(v) if n in changes else v for n, v in held.items()}
        expected = evaluate([node], {**old, **before, **held}, graph.opset)
        actual = evaluate([node], {**old, **before, **after, **moved}, graph.opset)
        for name in filter(None, node.output):
            change = changes.get(name)
            wanted = expected[name] if change is None else change.of(expected[name])
            parts = wanted if change is None else change.scaled(expected[name])
            axis = 1 if change is None else change.axis
            worst = max(worst, _off(actual[name], wanted, parts, axis))
            if name in limits and not limits[name].holds(expected[name]):
                raise CertificateError(f"{label!r} goes beyond what was proved of it")
    if not worst <= TOLERANCE:
        raise CertificateError(
            f"with other scales {label!r} differs from what it was by {worst:.3g} "
            f"(allowed: {TOLERANCE:g}); nothing was written"
        )
    return Certificate(worst, tuple(value.shape for probe in given for value in probe.values()))


def _off(actual: NDArray[Any], wanted: NDArray[Any], parts: NDArray[Any], axis: int) -> float:
    """The largest difference, relative to the largest value of its channel, or of its terms.

    What a shift leaves of a channel that is almost constant is as exact as the constant was.
    """
    if actual.shape != wanted.shape or not np.all(np.isfinite(actual) & np.isfinite(wanted)):
        return float("inf")
    others = tuple(set(range(wanted.ndim)) - {axis})
    off, size, term = (_largest(value, others) for value in (actual - wanted, wanted, parts))
    size = np.maximum(size, term)
    return float(np.max(off / np.where(size > 0, size, 1.0), initial=0.0))


def _largest(value: NDArray[Any], axes: Sequence[int]) -> Array:
    return np.asarray(np.max(np.abs(value), axis=tuple(axes), initial=0.0), np.float64)
