"""Where activations are in a graph, and whether it pays to write them otherwise."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from onnxfuse.affine import Refusal
from onnxfuse.fold import Outcome
from onnxfuse.graph import Graph
from onnxfuse.rewrites.activations import recipes
from onnxfuse.rewrites.making import Match, replaced
from onnxfuse.rewrites.pointwise import Functions, is_pointwise
from onnxfuse.rewrites.prices import SCALING, Prices
from onnxfuse.rewrites.proofs import Proofs
from onnxfuse.rounding import precision

_MOST_NODES = 12
_FEWEST_NODES = 2
_ROUNDINGS = 1.1  # a number that was rounded; the next to it is twice as far
_STRAIGHT = SCALING | {"Clip", "HardSigmoid", "LeakyRelu", "Max", "Min", "Relu"}
_MOST_CURVES = 3  # as many as the known activations are written with
_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
"""The types in which ONNX Runtime has every activation."""


def recognise_activations(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Writes activations as the operators that they are, where that takes fewer nodes.

    A scale and a shift count for nothing where an affine neighbour takes them in. What would be
    less exact is left alone.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.
    """
    outcome = Outcome()
    if not graph.takes_initializers:
        return outcome
    search, proofs = _Search(graph, skip), Proofs()
    for index in reversed(range(len(graph.nodes))):
        match = search.best(index)
        if match is None:
            continue
        made = replaced(graph, match, proofs)
        if isinstance(made, Refusal):
            node = graph.nodes[index]
            outcome.refusals.append((node.name or match.target, node.op_type, made.reason))
        else:
            search.taken.update(match.gone)
            outcome.folds.append(made)
    outcome.folds.reverse()
    folds = outcome.folds
    types = {name: graph.type(f.target) for f in folds for w in f.after for name in w.outputs}
    graph.types = {**graph.types, **types}
    graph.commit(prune=bool(outcome.folds))
    return outcome


class _Search:
    """Looks for the activation that ends with a node.

    Attributes:
        taken: Nodes that are no longer there.
    """

    def __init__(self, graph: Graph, skip: frozenset[str]) -> None:
        self.graph = graph
        self.taken: set[int] = set()
        self._pointwise = [
            node.op_type not in skip and is_pointwise(graph, index)
            for index, node in enumerate(graph.nodes)
        ]
        self._data = [graph.data(index) for index in range(len(graph.nodes))]
        self._prices = Prices(graph, self._data, skip)
        self._functions: dict[str, Functions] = {}

    def best(self, last: int) -> Match | None:
        """The recipe for a node's output that saves most, from the farthest tensor with any."""
        graph = self.graph
        if not self._pointwise[last]:
            return None
        target = graph.nodes[last].output[0]
        kind = graph.type(target).elem_type
        if kind not in _TYPES:
            return None
        roundoff, _ = precision(onnx.helper.tensor_dtype_to_np_dtype(kind))
        inside = self._above(last)
        for base in self._bases(inside):
            between = self._between(base, last, inside)
            gone = self._prices.gone(last, between)
            if len(gone) < _FEWEST_NODES:
                continue
            function = self._functions.setdefault(base, Functions(graph, base)).of(target)
            if function is None:
                continue
            found = [
                Match(base, target, function, recipe, between, gone, saved)
                for recipe in recipes(function, graph.opset, _ROUNDINGS * roundoff)
                if (saved := self._prices.saved(base, target, gone, recipe)) > 0
            ]
            if found:
                return max(found, key=lambda match: match.saved)
        return None

    def _above(self, last: int) -> frozenset[int]:
        """The elementwise nodes that lead to a node, itself included; no more than some."""
        inside: set[int] = set()
        pending = [last]
        while pending and len(inside) < _MOST_NODES:
            index = pending.pop(0)
            if index not in inside and index not in self.taken and self._pointwise[index]:
                inside.add(index)
                names = self._data[index]
                pending.extend(p for n in names if (p := self.graph.producers.get(n)) is not None)
        return frozenset(inside)

    def _bases(self, inside: frozenset[int]) -> list[str]:
        """What the last of some nodes may be a function of; nothing where none of them bends."""
        bends = any(self.graph.nodes[index].op_type not in SCALING for index in inside)
        names = (name for index in sorted(inside) for name in self._data[index])
        return list(dict.fromkeys(names)) if bends else []

    def _between(self, base: str, last: int, inside: frozenset[int]) -> tuple[int, ...]:
        """The nodes between a tensor and a node, in order; none where others lead there too."""
        between: set[int] = set()
        curves = 0
        pending = [last]
        while pending:
            index = pending.pop()
            if index in between:
                continue
            between.add(index)
            curves += self.graph.nodes[index].op_type not in _STRAIGHT
            if curves > _MOST_CURVES:
                return ()
            for name in self._data[index]:
                maker = self.graph.producers.get(name)
                if name != base and maker not in inside:
                    return ()
                if name != base and maker is not None:
                    pending.append(maker)
        return tuple(sorted(between))
