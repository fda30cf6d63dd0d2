"""Which evaluated constants not to write, since the file would grow by them.

Larger than what they replace may be: values of up to 64 KiB more, and weights of a layer, where
what they are made from disappears and makes nothing else (floats from small integers and scales).
Computing a weight in every run costs more than its size; keeping a tied weight twice does not pay.
What a quantizing operator reads may be no larger at all: somebody made it small, as scales in
float16.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import onnx

from onnxfuse.graph import Array, Graph
from onnxfuse.messages import operator
from onnxfuse.quantized import QUANTIZING

FREE_GROWTH = 64 << 10
_LAYERS = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})


def unprofitable(graph: Graph, values: Mapping[str, Array], done: set[int]) -> set[int]:
    """The evaluated nodes that stay all the same.

    Args:
        graph: The graph.
        values: Values of the tensors that somebody else than an evaluated node reads.
        done: Indices of the evaluated nodes.
    """
    kept: set[int] = set()
    pending = _excess(graph, values, done, kept)
    while pending:
        while pending:
            index = pending.pop()
            kept.add(index)
            for name in graph.reads[index]:
                source = graph.producers.get(name)
                if source in done and source not in kept and name not in values:
                    pending.append(source)
        pending = _excess(graph, values, done, kept)
    return kept


def _excess(graph: Graph, values: Mapping[str, Array], done: set[int], kept: set[int]) -> list[int]:
    """Nodes that make tensors larger than the constants that disappear with those nodes.

    A constant behind several large tensors counts for each by its share of their size.
    """
    makers = {
        name: index
        for name, value in values.items()
        if (value.nbytes > FREE_GROWTH or _is_quantized(graph, name))
        and (index := graph.producers[name]) not in kept
        and graph.nodes[index].op_type != "Constant"
    }
    roots = {name: _made_from(graph, done, index) for name, index in makers.items()}
    gone = done - kept
    leaving = {
        root
        for found in roots.values()
        for root in found
        if root not in graph.outputs and gone.issuperset(graph.consumers[root])
    }
    shared: Counter[str] = Counter()
    for name in makers:
        for root in roots[name]:
            shared[root] += values[name].nbytes
    excess: list[int] = []
    for name, index in makers.items():
        size = values[name].nbytes
        replaced = math.fsum(
            _bytes(graph, values, root) * size / shared[root] for root in roots[name] & leaving
        )
        alone = all(root in leaving and shared[root] == size for root in roots[name])
        converted = alone and _is_weight(graph, name, values[name].ndim)
        allowed = replaced if _is_quantized(graph, name) else replaced + FREE_GROWTH
        if size > allowed and not converted:
            excess.append(index)
    return excess


def _is_weight(graph: Graph, name: str, rank: int) -> bool:
    """True for a parameter of a layer; a matrix, where it is one factor of a MatMul."""
    readers = (graph.nodes[index] for index in graph.consumers.get(name, ()))
    return any(
        rank == 2 if node.op_type == "MatMul" else name in node.input[1:]
        for node in readers
        if node.op_type in _LAYERS
    )


def _is_quantized(graph: Graph, name: str) -> bool:
    """True for codes, scales and zero points."""
    readers = (graph.nodes[index] for index in graph.consumers.get(name, ()))
    return any(operator(node) in QUANTIZING for node in readers)


def _bytes(graph: Graph, values: Mapping[str, Array], name: str) -> int:
    return values[name].nbytes if name in values else constant_bytes(graph, name)


def constant_bytes(graph: Graph, name: str) -> int:
    """The size of a constant, without loading it."""
    kind = graph.type(name)
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return itemsize * math.prod(d for d in kind.shape or () if isinstance(d, int))


def _made_from(graph: Graph, done: set[int], index: int) -> set[str]:
    """The constants of this graph that an evaluated node depends on."""
    roots: set[str] = set()
    seen = {index}
    pending = [index]
    while pending:
        for name in graph.reads[pending.pop()]:
            source = graph.producers.get(name)
            if source is None or graph.nodes[source].op_type == "Constant":
                if graph.outer is None or not graph.outer.is_constant(name):
                    roots.add(name)
            elif source in done and source not in seen:
                seen.add(source)
                pending.append(source)
    return roots
