"""Proving a rewrite, with both sides in float64 on random probes, and putting it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxfuse.certify import TOLERANCE, Certificate
from onnxfuse.errors import CertificateError
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph
from onnxfuse.reference import evaluate
from onnxfuse.wiring import wiring

_CANCELLED = 1e-2


@dataclass(frozen=True)
class Replacement:
    """Nodes in the place of others.

    Attributes:
        kind: What it is called.
        formula: What it computes, in one line.
        source: The tensor that it computes from, or the first of them.
        target: The tensor that both make.
        before: The nodes that made it, by index, in order.
        gone: Those of them that nobody needs from now on.
        nodes: Those that make it from now on.
        constants: The constants that they need, by name.
    """

    kind: str
    formula: str
    source: str
    target: str
    before: tuple[int, ...]
    gone: tuple[int, ...]
    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Array]


def put_in(
    graph: Graph,
    replacement: Replacement,
    probes: Iterable[Mapping[str, Array]],
    allowed: float = TOLERANCE,
) -> Fold | None:
    """Proves a replacement, and makes it.

    Args:
        graph: The graph; changed, not committed.
        replacement: The replacement.
        probes: Values of the tensors that both sides start from.
        allowed: By how much they may differ, of the largest output for a probe.

    Returns:
        The record of it; None where they differ by so little more that it can be roundings which
        terms that cancel have made large: nothing is replaced then.

    Raises:
        CertificateError: If they differ by more than that.
    """
    certificate = _certified(graph, replacement, probes, allowed)
    if certificate.error > allowed:
        return None
    graph.replace(replacement.target, replacement.nodes)
    for name, value in replacement.constants.items():
        graph.add_constant(name, value)
    gone = [graph.nodes[index] for index in replacement.gone]
    return Fold(
        target=replacement.target,
        source=replacement.source,
        replaced=tuple((node.name or node.output[0], node.op_type) for node in gone),
        nodes=tuple(node.op_type for node in replacement.nodes),
        before=tuple(wiring(graph, node) for node in gone),
        after=tuple(wiring(graph, node) for node in replacement.nodes),
        formula=replacement.formula,
        certificate=certificate,
    )


def _certified(
    graph: Graph,
    replacement: Replacement,
    probes: Iterable[Mapping[str, Array]],
    allowed: float,
) -> Certificate:
    """Compares a replacement with what it replaces; raises CertificateError where they differ."""
    target = replacement.target
    before = [graph.nodes[index] for index in replacement.before]
    read = {name for node in (*before, *replacement.nodes) for name in node.input if name}
    known = {name: np.asarray(graph.constant(name)) for name in read if graph.is_constant(name)}
    worst, shapes = 0.0, dict[tuple[int, ...], None]()
    for probe in probes:
        given = {**known, **probe}
        expected = evaluate(before, given, graph.opset, {target})[target]
        given |= replacement.constants
        actual = evaluate(replacement.nodes, given, graph.opset, {target})[target]
        largest = float(np.max(np.abs(expected), initial=0.0)) or 1.0
        same = actual.shape == expected.shape
        off = float(np.max(np.abs(actual - expected), initial=0.0)) if same else np.inf
        worst = max(worst, off / largest)
        shapes.update(dict.fromkeys(value.shape for value in probe.values()))
    if not worst <= max(allowed, _CANCELLED):
        raise CertificateError(
            f"{replacement.kind} for {target!r} differs from the nodes it replaces by "
            f"{worst:.3g} (allowed: {allowed:.3g}); nothing was written"
        )
    return Certificate(worst, tuple(shapes), allowed=allowed)
