"""Pools with ceil_mode, whose sizes onnx gets wrong before opset 22.

There its inference counts a last window that begins in the padding behind the image, or beyond
it; runtimes make none, and from opset 22 on the definition says so too. Inference is the same in a
local function that imports opset 22: pool(x) -> function{pool}(x).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import helper

from onnxfuse.messages import bodies

DOMAIN = "onnxfuse.ceiling"
_CORRECT = 22
_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def infer_pools_as_run(model: onnx.ModelProto) -> None:
    """Moves such pools into functions, in a model that is there for its shapes alone."""
    scopes: list[tuple[Sequence[onnx.NodeProto], onnx.ModelProto | onnx.FunctionProto]] = [
        (model.graph.node, model),
        *((function.node, function) for function in model.functions),
    ]
    made: list[onnx.FunctionProto] = []
    for nodes, scope in scopes:
        version = next((o.version for o in scope.opset_import if o.domain in ("", "ai.onnx")), 0)
        if version >= _CORRECT:
            continue
        before = len(made)
        for node in _pools(nodes):
            made.append(_moved(node, f"Pool{len(made)}"))
        if len(made) > before:
            scope.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.functions.extend(made)


def _pools(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        for body in bodies(node):
            yield from _pools(body.node)
        is_pool = node.op_type in _POOLS and node.domain in ("", "ai.onnx")
        if is_pool and any(a.name == "ceil_mode" and a.i for a in node.attribute):
            yield node


def _moved(node: onnx.NodeProto, name: str) -> onnx.FunctionProto:
    """A function that holds the pool; the node becomes its call."""
    pool = onnx.NodeProto()
    pool.CopyFrom(node)
    names = [f"y{i}" for i in range(len(node.output))]
    del pool.input[:], pool.output[:]
    pool.input.append("x")
    pool.output.extend(names)
    node.domain, node.op_type = DOMAIN, name
    del node.attribute[:]
    return helper.make_function(
        DOMAIN, name, ["x"], names, [pool], [helper.make_opsetid("", _CORRECT)]
    )
