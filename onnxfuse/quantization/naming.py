"""Names as onnxruntime.quantization needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import onnx

from onnxfuse.messages import all_names, bodies

_ADDED = (
    *("_quantized", "_scale", "_zero_point", "_QuantizeLinear", "_DequantizeLinear"),
    *("_ReduceMin", "_ReduceMax", "_Reshape"),
)
"""What the names of the nodes and tensors that the library adds for a tensor go on with."""


def named(model: onnx.ModelProto) -> None:
    """Gives each node a name of its own, in place: the library knows nodes by their names."""
    known = {node.name for node in model.graph.node}
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            name = f"{node.op_type}_{number}"
            while name in known:
                name = f"{name}_"
            node.name = name
            known.add(name)
        taken.add(node.name)


def in_the_way(model: onnx.ModelProto) -> dict[str, str]:
    """Other names for tensors for which the library would add names that are taken.

    Args:
        model: A float model.

    Returns:
        By the tensor's name, one that nothing in the model begins with.
    """
    names = set(all_names(model.graph))
    found = {
        name[:at] for name in names for added in _ADDED for at in _places(name, added)
    } & _tensors(model.graph)
    fresh = (f"tensor{number}" for number in count())
    free = (new for new in fresh if not any(name.startswith(new) for name in names))
    return dict(zip(sorted(found), free, strict=False))


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Gives tensors of a graph, and of the bodies in it, other names, in place."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name in names:
                    field[index] = names[name]
        for body in bodies(node):
            rename(body, names)


def _places(name: str, part: str) -> Iterator[int]:
    at = name.find(part)
    while at >= 0:
        yield at
        at = name.find(part, at + 1)


def _tensors(graph: onnx.GraphProto) -> set[str]:
    held = (*graph.input, *graph.initializer)
    return {value.name for value in held} | {name for node in graph.node for name in node.output}
