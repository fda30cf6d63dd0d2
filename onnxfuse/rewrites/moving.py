"""Scales and shifts that move to the layer that takes them in.

    Conv(MaxPool(Relu(s * x)))         ->  Conv(s * MaxPool(Relu(x)))       forward
    s * Resize(Relu(Conv(x))) + t ..   ->  Resize(Relu(s * Conv(x))) ..     backward

A Mul, an Add or a BatchNormalization costs as much as reading and writing what it works on. In
front of a layer, or behind one, it costs nothing: the layer's weight takes it in. Where nodes lie
between that a scale and shift may move behind, and which are there for it alone, it moves (see
`lines`).

1. The layer is a Conv, ConvTranspose, Gemm or MatMul whose weight is constant and its own.
2. Forward, a shift moves where the layer pads with nothing, and where all that read the tensor are
   such layers.
3. Nothing moves that a layer takes in where it is.

Cross-layer equalization moves scales in the same way (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxfuse.affine import Refusal
from onnxfuse.fold import Outcome
from onnxfuse.graph import Graph
from onnxfuse.lift import Site, View
from onnxfuse.messages import operator
from onnxfuse.rewrites.lines import PASSED, Line, behind, line
from onnxfuse.rewrites.move_making import Move, moved

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_LONGEST = 8


def move_lines(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Moves scales and shifts next to layers that take them in.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If nodes do not agree with those they replace.
    """
    outcome = Outcome()
    if not graph.takes_initializers:
        return outcome
    search = _Search(graph, skip)
    for index in sorted(_beside_what_may_be_passed(graph), reverse=True):
        move = search.move(index)
        if move is None:
            continue
        made = moved(graph, move)
        if isinstance(made, Refusal):
            node = graph.nodes[index]
            outcome.refusals.append((node.name or node.output[0], node.op_type, made.reason))
            continue
        search.taken.update(move.nodes)
        outcome.folds.append(made.fold)
        graph.types = {**graph.types, **made.types}
    outcome.folds.reverse()
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _beside_what_may_be_passed(graph: Graph) -> set[int]:
    """The nodes in front of and behind those that a line may pass, by index."""
    passed = [node for node in graph.nodes if operator(node) in PASSED]
    makers = {graph.producers.get(name, -1) for node in passed for name in node.input}
    readers = {i for node in passed for name in node.output for i in graph.consumers.get(name, ())}
    return (makers | readers) - {-1}


@dataclass
class _Search:
    """Looks for the way that a node may take.

    Attributes:
        graph: The graph.
        skip: Operators that are left alone.
        taken: Nodes that are no longer where they were.
    """

    graph: Graph
    skip: frozenset[str]

    def __post_init__(self) -> None:
        self.taken: set[int] = set()

    def move(self, index: int) -> Move | None:
        """How a node moves; None where it stays."""
        graph = self.graph
        if graph.nodes[index].op_type in self.skip:
            return None
        found = line(graph, index)
        if found is None:
            return None
        (source,) = graph.data(index)
        target = graph.nodes[index].output[0]
        if self._gives(source, index, found) or self._all_take(target, found):
            return None
        return self._forward(index, source, found) or self._backward(index, source, found)

    def _forward(self, index: int, source: str, given: Line) -> Move | None:
        """The nodes behind, up to the first tensor that layers alone read."""
        graph = self.graph
        nodes, lines, name = [index], [given], graph.nodes[index].output[0]
        while len(nodes) <= _LONGEST:
            reader = graph.only_reader(name)
            if reader is None or not self._is_free(reader):
                return None
            following = behind(graph, reader, name, lines[-1])
            if following is None:
                return None
            nodes.append(reader)
            lines.append(following)
            name = graph.nodes[reader].output[0]
            if self._all_take(name, following):
                return Move(source, tuple(nodes), tuple(lines), forward=True)
        return None

    def _backward(self, index: int, source: str, given: Line) -> Move | None:
        """The nodes in front, from the last tensor that a layer makes for them alone."""
        graph = self.graph
        nodes: list[int] = [index]
        name = source
        while len(nodes) <= _LONGEST:
            maker = graph.producers.get(name)
            if maker is None or graph.only_reader(name) != nodes[0] or not self._is_free(maker):
                return None
            first, *others = graph.data(maker) or ("",)
            if others or behind(graph, maker, first, given) is not given:
                return None
            nodes.insert(0, maker)
            name = first
            if self._gives(name, maker, given):
                return Move(name, tuple(nodes), (given,) * len(nodes), forward=False)
        return None

    def _is_free(self, index: int) -> bool:
        return index not in self.taken and self.graph.nodes[index].op_type not in self.skip

    # Layers ------------------------------------------------------------------------------------

    def _all_take(self, name: str, given: Line) -> bool:
        """True where layers alone read a tensor, and each takes the line in."""
        graph = self.graph
        if graph.is_pinned(name):
            return False
        return all(self._takes(index, name, given) for index in graph.consumers.get(name, ()))

    def _takes(self, index: int, name: str, given: Line) -> bool:
        """True for a layer that takes in the line in front of it."""
        graph, node = self.graph, self.graph.nodes[index]
        if not self._is_layer(index):
            return False
        site = Site(graph, node, node.output[0], View.image(max(given.rank, 1)))
        if node.op_type == "MatMul":
            return given.axis == given.rank - (1 if node.input[0] == name else 2)
        if node.input[0] != name or given.axis != 1:
            return False
        if node.op_type == "Gemm":
            return not site.integer("transA", 0)
        if node.op_type == "ConvTranspose":
            return given.is_scale
        pads = site.integer_list("pads") or ()
        unpadded = not any(pads) and site.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        return given.is_scale or unpadded

    def _gives(self, name: str, reader: int, given: Line) -> bool:
        """True where a layer makes a tensor, for one node alone, and takes in what is behind it."""
        graph = self.graph
        index = graph.producers.get(name)
        if index is None or graph.only_reader(name) != reader or not self._is_layer(index):
            return False
        node = graph.nodes[index]
        if node.op_type == "MatMul":
            by_right = graph.is_constant(node.input[1])
            return given.axis == given.rank - (1 if by_right else 2)
        return given.axis == 1

    def _is_layer(self, index: int) -> bool:
        """True for a layer whose constants nobody else reads."""
        graph, node = self.graph, self.graph.nodes[index]
        if operator(node) not in _LAYERS - self.skip:
            return False
        constants = [name for name in node.input if name and graph.is_constant(name)]
        own = all(len(graph.consumers[name]) == 1 for name in constants)
        return own and len(constants) == sum(map(bool, node.input)) - 1
