"""A tensor and a gated copy of it, added: the sum moves to the gate, which is smaller.

    x + x * g  ->  x * (1 + g)
    x - x * g  ->  x * (1 - g)
    x * g - x  ->  x * (g - 1)

1. The product is for the sum alone.
2. Broadcasting the gate leaves x as large as it is.
3. The gate has fewer elements: somewhere it is 1 where x is not.
4. Neither has more than eight dimensions: so many are proved.

Squeeze-and-excitation with a residual writes the first, with a gate of one number per channel.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import FLOAT_TYPES, Array, Dim, Graph
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in

_SIZES = (3, 4, 5, 2, 2, 2, 2, 2)


class _Gated(NamedTuple):
    x: str
    gate: str
    product: int
    total: int


def distribute_gates(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Adds 1 to a gate in the place of adding a tensor to what the gate leaves of it.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If a product does not agree with the nodes it replaces.
    """
    if not graph.takes_initializers:
        return Outcome()
    found = [_gated(graph, index) for index in range(len(graph.nodes))]
    folds = [
        _replaced(graph, gated)
        for gated in found
        if gated is not None and not skip.intersection(_operators(graph, gated))
    ]
    types = {name: graph.type(fold.target) for fold in folds for name in fold.after[-1].outputs}
    graph.types = {**graph.types, **types}
    graph.commit(prune=bool(folds))
    return Outcome(folds)


def _operators(graph: Graph, gated: _Gated) -> tuple[str, str]:
    return graph.nodes[gated.product].op_type, graph.nodes[gated.total].op_type


def _gated(graph: Graph, total: int) -> _Gated | None:
    """x, its gate, and the two nodes, where a node adds a product of x to x."""
    node = graph.nodes[total]
    if node.op_type not in ("Add", "Sub") or node.domain not in ("", "ai.onnx"):
        return None
    if graph.type(node.output[0]).elem_type not in FLOAT_TYPES:
        return None
    for x, other in (tuple(node.input), tuple(node.input)[::-1]):
        index = graph.producers.get(other)
        if index is None or graph.is_constant(x):
            continue
        product = graph.nodes[index]
        if product.op_type != "Mul" or product.domain not in ("", "ai.onnx"):
            continue
        gates = [name for name in product.input if name != x]
        if len(gates) != 1 or graph.is_constant(gates[0]) or graph.only_reader(other) != total:
            continue
        if _is_smaller(graph.type(gates[0]).shape, graph.type(x).shape):
            return _Gated(x, gates[0], index, total)
    return None


def _is_smaller(gate: tuple[Dim, ...] | None, x: tuple[Dim, ...] | None) -> bool:
    """True for a gate that is broadcast against x, and not the other way round."""
    if gate is None or x is None or not len(gate) <= len(x) <= len(_SIZES):
        return False
    pairs = list(zip(gate, x[len(x) - len(gate) :], strict=True))
    fits = all(g == 1 or (g is not None and g == n) for g, n in pairs)
    return fits and (len(gate) < len(x) or any(g == 1 != n for g, n in pairs))


def _replaced(graph: Graph, gated: _Gated) -> Fold:
    """Puts the product in the place of product and sum."""
    node = graph.nodes[gated.total]
    target = node.output[0]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.type(target).elem_type)
    one, sum_ = (graph.unique_name(f"{target}/{word}") for word in ("one", node.op_type))
    minuends = [gated.gate, one] if node.input[1] == gated.x else [one, gated.gate]
    nodes = [
        onnx.helper.make_node(node.op_type, minuends, [sum_], name=sum_),
        onnx.helper.make_node(
            "Mul", [gated.x, sum_], [target], name=graph.unique_name(f"{target}/Mul")
        ),
    ]
    sign = "-" if node.op_type == "Sub" else "+"
    factor = f"g {sign} 1" if node.input[1] == gated.x else f"1 {sign} g"
    replacement = Replacement(
        kind="a gate",
        formula=f"y = x * ({factor})",
        source=gated.x,
        target=target,
        before=(gated.product, gated.total),
        gone=(gated.product, gated.total),
        nodes=nodes,
        constants={one: np.ones((), dtype)},
    )
    certificate = certify_equal(graph, replacement, _probes(graph, gated))
    assert not isinstance(certificate, Refusal)  # sums and products of small numbers
    return put_in(graph, replacement, certificate)


def _probes(graph: Graph, gated: _Gated) -> Iterator[dict[str, Array]]:
    """Random tensors with the shapes that are known, no two unknown sizes the same."""
    rng = np.random.default_rng(zlib.crc32(gated.x.encode()))
    shape = graph.type(gated.x).shape or ()
    gate = graph.type(gated.gate).shape or ()
    sizes = _SIZES[: len(shape)]
    small = [1 if g == 1 else n for g, n in zip(gate, sizes[len(shape) - len(gate) :], strict=True)]
    yield {gated.x: rng.standard_normal(sizes), gated.gate: rng.standard_normal(small)}
