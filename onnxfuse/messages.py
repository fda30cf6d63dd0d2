"""What protobuf messages of ONNX say, and copies of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def attributes(node: onnx.NodeProto) -> dict[str, onnx.AttributeProto]:
    """The node's attributes by name."""
    return {a.name: a for a in node.attribute}


def operator(node: onnx.NodeProto) -> str:
    """A node's operator in the default ONNX domain; empty for one of another domain."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else ""


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that the node holds as attributes (If, Loop, Scan, or a custom operator)."""
    if node.op_type not in _WITH_BODIES and not node.domain:
        return
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor name that a body reads, its own tensors and captured ones alike."""
    for node in graph.node:
        yield from node.input
        for body in bodies(node):
            yield from names_read(body)
    for output in graph.output:
        yield output.name


def trained_names(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors of a model's graph that its training information names."""
    named: set[str] = set()
    for info in model.training_info:
        for binding in (*info.initialization_binding, *info.update_binding):
            named.add(binding.key)
        named.update(all_names(info.algorithm))
    return frozenset(filter(None, named))


def has_effects(node: onnx.NodeProto) -> bool:
    """True for a custom operator without outputs: it is there for what it does."""
    return not any(node.output) and not operator(node)


def detached(message: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """A copy that does not go with the message around it."""
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(message)
    return copy


def renamed(
    node: onnx.NodeProto, names: Mapping[str, str], outputs: Mapping[str, str] | None = None
) -> onnx.NodeProto:
    """A copy of the node with other tensor names."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name in names:
            copy.input[index] = names[name]
    for index, name in enumerate(node.output):
        if outputs and name in outputs:
            copy.output[index] = outputs[name]
        elif name in names:
            copy.output[index] = names[name]
    return copy


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name in a graph and its bodies, of tensors and of nodes."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
    for tensor in graph.initializer:
        yield tensor.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for body in bodies(node):
            yield from all_names(body)
