"""The proof that what is left of channels is the same: old and new nodes side by side, in float64.

Random tensors go in at the front, and from there every old node computes on what those before it
made. So a channel that is said to be constant is so only if the nodes make it constant. The new
node computes on the channels that are left of the same tensors, and has to make what is left of the
old one's.

Sizes matter to no channel's being needed. So in front of a node a tensor is repeated or cut along
other axes, alike on both sides: until a window has room, and what is added together fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.affine import Refusal
from onnxfuse.certify import TOLERANCE, Certificate
from onnxfuse.errors import CertificateError
from onnxfuse.graph import Graph
from onnxfuse.reference import UnsupportedOperator, evaluate
from onnxfuse.rewrites.channel_making import Cuts, Maker
from onnxfuse.rewrites.channel_nodes import ELEMENTWISE, Layer, Tie, settings

Reals = NDArray[np.float64]
_SIZES = (2, 5, 6, 4, 3, 2, 2, 2)
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_DROPPING = frozenset({"Flatten", "Squeeze"})


class _Operand(NamedTuple):
    """What a node computes on.

    Attributes:
        name: Its name.
        shape: Its shape.
        axis: That of its channels, counted from the last; None where one is for all.
    """

    name: str
    shape: tuple[int, ...]
    axis: int | None


@dataclass(frozen=True)
class Step:
    """A node, as it was and as it is with fewer channels."""

    index: int
    old: Sequence[onnx.NodeProto]
    new: Sequence[onnx.NodeProto]


def certify(maker: Maker, steps: Sequence[Step], cuts: Cuts) -> Certificate | Refusal:
    """Compares old nodes with new ones.

    Args:
        maker: What made the new ones.
        steps: The nodes, in order: all that make or read a tensor that loses channels.
        cuts: Those tensors.

    Returns:
        The certificate, or a refusal where the evaluator has no safe meaning for a node, or makes
        of a probe what is no number.

    Raises:
        CertificateError: If they differ by more than 1e-10 of the largest number.
    """
    sides = _Sides(maker, cuts)
    worst = 0.0
    for step in steps:
        try:
            error = sides.error(step)
        except UnsupportedOperator as unsupported:
            return Refusal(f"it cannot be certified: {unsupported.reason}")
        if error is None:
            return Refusal("it cannot be certified: it makes what is no number")
        worst = max(worst, error)
        if not error <= TOLERANCE:
            raise CertificateError(
                f"{maker.plan.roles[step.index].y!r} without some channels differs by {error:.3g} "
                f"(allowed: {TOLERANCE:g}); nothing was written"
            )
    return Certificate(worst, tuple(dict.fromkeys(sides.shapes)))


class _Sides:
    """What the old nodes make, and what the new ones make of the same.

    Attributes:
        values: Tensors by the names that they had.
        shapes: Those of the random tensors.
    """

    def __init__(self, maker: Maker, cuts: Cuts) -> None:
        self.maker, self.graph, self.cuts = maker, maker.graph, cuts
        self.values: dict[str, Reals] = {}
        self.shapes: list[tuple[int, ...]] = []
        self._rng = np.random.default_rng(zlib.crc32(" ".join(cuts).encode()))

    def error(self, step: Step) -> float | None:
        """By how much a node's outputs differ; None where they are no numbers."""
        role = self.maker.plan.roles[step.index]
        operands = list(self._operands(step))
        sizes = _sizes(self.graph, step.old[0], operands)
        broadcasts = step.old[0].op_type in ELEMENTWISE
        before, after = {}, {}
        for operand in operands:
            value = _fitted(self.values[operand.name], operand, sizes, broadcasts=broadcasts)
            before[operand.name] = value
            after[self._new_name(operand.name)] = self._left(operand.name, value, operand.axis)
        y = str(step.old[-1].output[0])
        expected = self.values[y] = self._run(step.old, before, y)
        if not np.all(np.isfinite(expected)):
            return None
        actual = self._run(step.new, after, self._new_name(y))
        expected = self._left(y, expected, role.y_span.axis)
        if expected.shape != actual.shape:
            return float("inf")
        largest = max(float(np.max(np.abs(expected))), self.maker.absorbed.get(step.index, 0.0))
        return float(np.max(np.abs(expected - actual))) / (largest or 1.0)

    def _new_name(self, name: str) -> str:
        return self.cuts[name].name if name in self.cuts else name

    def _left(self, name: str, value: Reals, axis: int | None) -> Reals:
        """What is left of a tensor."""
        if name not in self.cuts or axis is None:
            return value
        return np.compress(self.cuts[name].kept, value, axis=axis)

    def _operands(self, step: Step) -> Iterator[_Operand]:
        """What a node computes on; random numbers for what no node before it makes."""
        plan, first = self.maker.plan, self.graph.nodes[step.index]
        role, names = plan.roles[step.index], {}
        for name, original in zip(step.old[0].input, first.input, strict=False):  # a bias is new
            if name and not self.graph.is_constant(name):
                names[name] = str(original)
        for name, original in names.items():
            span = role.x_span if isinstance(role, Layer) else plan.spans.get(original)
            shape = self.graph.type(original).shape or ()
            if isinstance(role, Tie) and original in role.free:
                span = None
            if name not in self.values:
                made = [1 if n == 1 else _SIZES[axis] for axis, n in enumerate(shape)]
                if span is not None:
                    made[span.axis] = self.maker.left.get(name, span.count)
                probe = self._rng.standard_normal(made)
                self.values[name] = probe
                self.shapes.append(probe.shape)
            axis = None if span is None else span.axis - len(shape)
            yield _Operand(name, self.values[name].shape, axis)

    def _run(self, nodes: Sequence[onnx.NodeProto], fed: Mapping[str, Reals], y: str) -> Reals:
        given = dict(fed)
        for name in (name for node in nodes for name in node.input):
            if self.graph.is_constant(name):
                exact = self.maker.exact.get(name)
                given[name] = np.asarray(self.graph.constant(name)) if exact is None else exact
        return np.asarray(evaluate(nodes, given, self.graph.opset, {y})[y])


def _sizes(graph: Graph, node: onnx.NodeProto, operands: Sequence[_Operand]) -> Mapping[int, int]:
    """How large axes have to be, counted from the last; those that are left out may be anything."""
    given = settings(node)
    shape = graph.constant_shape(node.input[1]) if node.op_type in _CONVOLUTIONS else None
    kernel = given.get("kernel_shape", shape[2:] if shape else ())
    if kernel:
        dilations = given.get("dilations", [1] * len(kernel))
        room = [(k - 1) * d + 2 for k, d in zip(kernel, dilations, strict=True)]
        found = zip(operands[0].shape[2:], room, strict=True)
        return {axis - len(kernel): max(n, enough) for axis, (n, enough) in enumerate(found)}
    if node.op_type in _DROPPING:
        return dict.fromkeys(range(operands[0].axis + 1 if operands[0].axis else 0, 0), 1)
    if node.op_type not in ELEMENTWISE | {"Concat"}:
        return {}
    sizes: dict[int, int] = {}
    for operand in operands:
        for axis, n in enumerate(operand.shape, -len(operand.shape)):
            sizes[axis] = max(sizes.get(axis, 1), n)
    for constant in (graph.constant_shape(name) or () for name in node.input if name):
        sizes |= {axis: n for axis, n in enumerate(constant, -len(constant)) if n > 1}
    return sizes


def _fitted(
    value: Reals, operand: _Operand, sizes: Mapping[int, int], *, broadcasts: bool
) -> Reals:
    """A tensor that is repeated or cut along all axes but that of its channels."""
    for axis, size in sizes.items():
        n = value.shape[axis] if -axis <= value.ndim else size
        if axis != operand.axis and n != size and not (broadcasts and n == 1):
            value = np.take(value, np.arange(size) % n, axis=axis)
    return value
