"""Proving a rewrite, both sides evaluated on random probes, and putting it in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.affine import Refusal
from onnxfuse.certify import TOLERANCE, Certificate
from onnxfuse.errors import CertificateError
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph
from onnxfuse.reference import evaluate
from onnxfuse.reference.call import Tensor
from onnxfuse.wiring import wiring

Reals = NDArray[np.floating[Any]]

_ROUNDINGS = 2  # spacings: numbers in it were rounded, on one side or on both
_NUDGE = 2.0**-50  # of every output, to see how much the roundings of float64 matter
_NUDGES = 4
_LARGER = 4
NOT_EXACT_ENOUGH = "written as an activation it would be less exact"


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
        exact: Those that were rounded to the model's type, in float64: the proof takes these.
    """

    kind: str
    formula: str
    source: str
    target: str
    before: tuple[int, ...]
    gone: tuple[int, ...]
    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Array]
    exact: Mapping[str, Array] = field(default_factory=dict)


def put_in(graph: Graph, replacement: Replacement, certificate: Certificate) -> Fold:
    """Makes a replacement that is proved; the graph is changed, not committed."""
    graph.replace(replacement.target, replacement.nodes)
    for name, value in replacement.constants.items():
        graph.add_constant(name, value)
    gone = [graph.nodes[index] for index in replacement.gone]
    return Fold(
        target=replacement.target,
        source=replacement.source,
        nodes=tuple(node.op_type for node in replacement.nodes),
        replaced=tuple((node.name or node.output[0], node.op_type) for node in gone),
        before=tuple(wiring(graph, node) for node in gone),
        after=tuple(wiring(graph, node) for node in replacement.nodes),
        formula=replacement.formula,
        certificate=certificate,
    )


def certify_equal(
    graph: Graph, replacement: Replacement, probes: Iterable[Mapping[str, Array]]
) -> Certificate | Refusal:
    """Compares both sides in float64.

    Args:
        graph: The graph around the nodes.
        replacement: The replacement.
        probes: Values of the tensors that both sides start from, and of sizes among constants.

    Returns:
        The certificate, or a refusal where the replaced nodes make what is no number of a probe.

    Raises:
        CertificateError: If they differ by more than 1e-10 of the largest output, or in shape.
    """
    sides = _Sides(graph, replacement)
    worst, shapes = 0.0, dict[tuple[int, ...], None]()
    for probe in probes:
        expected, actual = sides.run(sides.old, probe), sides.run(sides.new, probe)
        if not np.all(np.isfinite(expected)):
            return Refusal("it cannot be certified: it makes what is no number")
        largest = float(np.max(np.abs(expected), initial=0.0)) or 1.0
        worst = max(worst, _largest(actual, expected) / largest)
        given = [value.shape for value in probe.values() if value.dtype.kind == "f"]
        shapes.update(dict.fromkeys(given))
    if not worst <= TOLERANCE:
        raise CertificateError(
            f"{replacement.kind} for {replacement.target!r} differs from the nodes it replaces by "
            f"{worst:.3g} (allowed: {TOLERANCE:g}); nothing was written"
        )
    return Certificate(worst, tuple(shapes))


def certify_alike(graph: Graph, replacement: Replacement, x: Reals) -> Certificate | Refusal:
    """Compares two ways to compute a function of one number, number by number.

    1. In float64 they differ by no more than two spacings of the model's type: of the output, and
       of x. A number somebody rounded to that type explains as much.
    2. With every node rounded to the model's type, the new nodes are at most twice as far from
       float64 as the old ones are, but for as many spacings again. So nothing cancels, overflows or
       underflows in them that did not before.

    Where something cancels in float64 itself, as far as that moves the output is allowed as well;
    where the old nodes overflow in it, nothing is asked of the new ones.

    Args:
        graph: The graph around the nodes.
        replacement: The replacement; it computes from `source` alone.
        x: Values of the source, in the model's type.

    Returns:
        The certificate, or a refusal where they differ by more.
    """
    sides = _Sides(graph, replacement)
    dtype = x.dtype
    one = np.ones((), dtype)
    spacing = float(np.nextafter(one, one + one)) - 1.0
    wide = x.astype(np.float64)
    probe = {replacement.source: wide}
    expected, actual = (np.ravel(sides.run(nodes, probe)) for nodes in (sides.old, sides.new))
    near = [{replacement.source: wide * (1 + by)} for by in (-spacing, spacing)]
    beside = [np.ravel(sides.run(sides.old, moved)) for moved in near]
    old, new = (
        np.ravel(sides.run_rounded(nodes, probe, dtype)) for nodes in (sides.old, sides.new)
    )
    with np.errstate(all="ignore"):
        moved = np.max([np.abs(value - expected) for value in beside], axis=0)
        size = np.abs(expected) + moved / spacing
        noise = _LARGER * (sides.noise(sides.old, probe) + sides.noise(sides.new, probe))
        beyond = np.maximum(np.abs(actual - expected) - noise, 0.0)
        off = np.where(beyond == 0, 0.0, beyond / size)
        few = size * spacing + noise + float(np.finfo(dtype).smallest_subnormal)
        gap = np.abs(new - expected)
        no_worse = ~np.isfinite(old) | (gap <= _ROUNDINGS * (few + np.abs(old - expected)))
    asked = np.isfinite(expected) & np.isfinite(moved)
    allowed = _ROUNDINGS * spacing
    if not np.all((off <= allowed)[asked]) or not np.all(no_worse[asked]):
        return Refusal(NOT_EXACT_ENOUGH)
    error = float(np.max(off[asked], initial=0.0))
    return Certificate(error, (x.shape,), allowed=allowed)


class _Sides:
    """What a replacement and the nodes it replaces make of a probe."""

    def __init__(self, graph: Graph, replacement: Replacement) -> None:
        self.target, self.opset = replacement.target, graph.opset
        self.old = [graph.nodes[index] for index in replacement.before]
        self.new = replacement.nodes
        read = {name for node in (*self.old, *self.new) for name in node.input if name}
        self.known = {n: np.asarray(graph.constant(n)) for n in read if graph.is_constant(n)}
        self.known |= {**replacement.constants, **replacement.exact}

    def run(self, nodes: Sequence[onnx.NodeProto], probe: Mapping[str, Array]) -> Tensor:
        """The target, by some nodes in float64."""
        return evaluate(nodes, {**self.known, **probe}, self.opset, {self.target})[self.target]

    def noise(self, nodes: Sequence[onnx.NodeProto], probe: Mapping[str, Array]) -> Tensor:
        """How far the target moves, flattened, where every output moves up or down a little."""
        rng = np.random.default_rng(0)
        straight = self.run(nodes, probe)

        def nudged(value: Tensor) -> Tensor:
            return np.asarray(value * (1.0 + _NUDGE * rng.choice((-1.0, 1.0))))

        runs = [self._run_stepwise(nodes, probe, nudged) for _ in range(_NUDGES)]
        return np.asarray(np.max([np.ravel(np.abs(run - straight)) for run in runs], axis=0))

    def run_rounded(
        self,
        nodes: Sequence[onnx.NodeProto],
        probe: Mapping[str, Array],
        dtype: np.dtype[np.floating[Any]],
    ) -> Tensor:
        """The target, every output rounded to a type as soon as it is there."""

        def rounded(value: Tensor) -> Tensor:
            with np.errstate(over="ignore"):
                return np.asarray(value.astype(dtype).astype(np.float64))

        return self._run_stepwise(nodes, probe, rounded)

    def _run_stepwise(
        self,
        nodes: Sequence[onnx.NodeProto],
        probe: Mapping[str, Array],
        change: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The target, what each node makes changed before others read it."""
        values: dict[str, Tensor] = {**self.known, **probe}
        for node in nodes:
            made = evaluate([node], {n: values[n] for n in node.input if n}, self.opset)
            values |= {name: change(made[name]) for name in node.output}
        return values[self.target]


def _largest(actual: Tensor, expected: Tensor) -> float:
    """The largest difference; infinite where there is no number."""
    if actual.shape != expected.shape:
        return float("inf")
    off = np.abs(actual - expected)
    return float("inf") if np.isnan(off).any() else float(np.max(off, initial=0.0))
