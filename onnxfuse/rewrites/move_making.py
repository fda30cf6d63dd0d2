"""Puts a scale and shift elsewhere, with its proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.rewrites.lines import Line
from onnxfuse.rewrites.probes import probes
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in
from onnxfuse.rounding import precision


@dataclass(frozen=True)
class Move:
    """A way that a line takes.

    Attributes:
        source: The tensor that the first of the nodes computes on.
        nodes: By index, in order: its own and those that it moves behind; or in front of.
        lines: What each of them makes of the line, in the same order; the last where it goes.
        forward: True where it moves behind them.
    """

    source: str
    nodes: tuple[int, ...]
    lines: tuple[Line, ...]
    forward: bool


@dataclass(frozen=True)
class Moved:
    """A move that was made.

    Attributes:
        fold: What happened.
        types: What is known of the new tensors.
    """

    fold: Fold
    types: Mapping[str, TensorType]


def moved(graph: Graph, move: Move) -> Moved | Refusal:
    """Moves a line; the graph is changed, not committed.

    Args:
        graph: The graph.
        move: The way.

    Raises:
        CertificateError: If the nodes do not agree with those that they replace.
    """
    maker = _Maker(graph, move)
    maker.make()
    word = "behind" if move.forward else "in front of"
    passed = ", ".join(graph.nodes[index].op_type for index in maker.passed)
    replacement = Replacement(
        kind="a scale and shift",
        formula=f"scale and shift {word} {passed}",
        source=move.source,
        target=maker.target,
        before=move.nodes,
        gone=move.nodes,
        nodes=maker.nodes,
        constants=maker.constants,
        exact=maker.exact,
    )
    rounded = _rounded_well(maker)
    if isinstance(rounded, Refusal):
        return rounded
    given = probes(graph, move.source, move.nodes, move.lines[0].axis)
    if isinstance(given, Refusal):
        return given
    certificate = certify_equal(graph, replacement, given)
    if isinstance(certificate, Refusal):
        return certificate
    return Moved(put_in(graph, replacement, certificate), maker.types)


class _Maker:
    """The nodes of a move.

    Attributes:
        target: The tensor that they make.
        passed: The nodes that the line moves past.
        nodes: Those in their place.
        constants: The constants that these need, in the model's type.
        exact: The same in float64.
        types: What is known of the tensors between them.
    """

    def __init__(self, graph: Graph, move: Move) -> None:
        self.graph, self.move = graph, move
        self.target = graph.nodes[move.nodes[-1]].output[0]
        self.own = move.nodes[0 if move.forward else -1]
        kind = graph.type(graph.nodes[self.own].output[0]).elem_type
        self.dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        self.passed = move.nodes[1:] if move.forward else move.nodes[:-1]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.exact: dict[str, Array] = {}
        self.types: dict[str, TensorType] = {}

    def make(self) -> None:
        graph, name = self.graph, self.move.source
        old = name
        if self.move.forward:
            old = graph.nodes[self.own].output[0]
        else:
            name = self._line(name, graph.type(name))
        for index in self.passed:
            name = self._copy(index, old, name, graph.type(graph.nodes[index].output[0]))
            old = graph.nodes[index].output[0]
        if self.move.forward:
            self._line(name, graph.type(self.target))
        self.types.pop(self.nodes[-1].output[0])
        self.nodes[-1].output[0] = self.target

    def _line(self, name: str, kind: TensorType) -> str:
        first, last = self.move.lines[0], self.move.lines[-1]
        if last.scale is first.scale and last.is_laid_out_like(first):
            (old,) = self.graph.data(self.own)
            return self._copy(self.own, old, name, kind)
        for op_type, value, nothing in (("Mul", last.scale, 1.0), ("Add", last.shift, 0.0)):
            if np.any(value != nothing):
                name = self._with(op_type, name, value, kind)
        return name

    def _with(self, op_type: str, name: str, value: Array, kind: TensorType) -> str:
        """Multiplies or adds one value for each channel."""
        line = self.move.lines[-1]
        constant = self.graph.unique_name(f"{self.target}/{op_type}_by")
        shaped = value.reshape(-1, *(1,) * (line.rank - 1 - line.axis))
        with np.errstate(over="ignore"):
            self.constants[constant] = shaped.astype(self.dtype)
        self.exact[constant] = shaped
        made = self._name(op_type, kind)
        self.nodes.append(onnx.helper.make_node(op_type, [name, constant], [made], name=made))
        return made

    def _copy(self, index: int, old: str, new: str, kind: TensorType) -> str:
        node = onnx.NodeProto()
        node.CopyFrom(self.graph.nodes[index])
        node.input[:] = [new if given == old else given for given in node.input]
        node.output[0] = self._name(node.op_type, kind)
        self.nodes.append(node)
        return str(node.output[0])

    def _name(self, op_type: str, kind: TensorType) -> str:
        name = self.graph.unique_name(f"{self.target}/{op_type}")
        self.types[name] = kind
        return name


def _rounded_well(maker: _Maker) -> Refusal | None:
    """Why a constant cannot be written in the model's type, or None."""
    for name, value in maker.constants.items():
        exact = np.abs(maker.exact[name])
        _, smallest = precision(value.dtype)
        if not np.all(np.isfinite(value)) or np.any((exact > 0) & (exact < smallest)):
            return Refusal(f"moved, its constants cannot be written in {value.dtype}")
    return None
