"""Local functions in place of their calls, defaults of attributes included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx.inliner

from onnxfuse.messages import bodies


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model without local functions.

    Defaults of a function's attributes are written into its calls first: onnx's inliner drops what
    a call leaves out.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    defaults = {
        (function.domain, function.name, function.overload): list(function.attribute_proto)
        for function in copy.functions
    }
    nodes = [*_nodes(copy.graph.node), *(n for f in copy.functions for n in _nodes(f.node))]
    for node in nodes:
        given = {attribute.name for attribute in node.attribute}
        known = defaults.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend(a for a in known if a.name not in given)
    return onnx.inliner.inline_local_functions(copy)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _nodes(body.node)
