"""Nodes that stay float, out of sight of onnxruntime.quantization.

    y = f(x; attributes) -> y = own.f(x), a local function that is f    and back

The library leaves nodes float that it is told to, but it takes ranges, and makes histograms, of
what they read and make all the same, and fails at the -inf of a mask. It does not look into
functions, and ONNX Runtime runs them as what is in them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import onnx
from onnx import helper

from onnxfuse.messages import bodies

_FUNCTIONS = 8
"""The IR version that has them."""


def hidden(model: onnx.ModelProto, names: Container[str]) -> dict[str, onnx.NodeProto]:
    """Replaces nodes by calls of functions, in place.

    Nodes that hold bodies stay: a body may read any tensor, and the library looks into none.

    Args:
        model: Every node has a name of its own.
        names: The nodes.

    Returns:
        What was replaced, by name.
    """
    held: dict[str, onnx.NodeProto] = {}
    domain = _free_domain(model)
    for number, node in enumerate(model.graph.node):
        if node.name not in names or any(bodies(node)):
            continue
        held[node.name] = copied = onnx.NodeProto()
        copied.CopyFrom(node)
        call = helper.make_node(
            f"{node.op_type}_{number}", _given(node.input), _given(node.output), node.name
        )
        call.domain = domain
        model.functions.append(_function(call, node, model.opset_import))
        node.CopyFrom(call)
    if held:
        model.opset_import.append(helper.make_opsetid(domain, 1))
        model.ir_version = max(model.ir_version, _FUNCTIONS)
    return held


def shown(model: onnx.ModelProto, held: Mapping[str, onnx.NodeProto]) -> None:
    """Puts the nodes back, in place; they read what the calls of the functions have come to read.

    Args:
        model: What has become of the model.
        held: What `hidden` gave.
    """
    domains = set()
    for call in model.graph.node:
        if call.name not in held:
            continue
        domains.add(call.domain)
        node = onnx.NodeProto()
        node.CopyFrom(held[call.name])
        for now, then in ((call.input, node.input), (call.output, node.output)):
            names = iter(now)
            then[:] = [next(names) if name else "" for name in then]
        call.CopyFrom(node)
    for messages in (model.functions, model.opset_import):
        for index in reversed(range(len(messages))):
            if messages[index].domain in domains:
                del messages[index]


def _given(names: Iterable[str]) -> list[str]:
    return [name for name in names if name]


def _function(
    call: onnx.NodeProto, node: onnx.NodeProto, imports: Iterable[onnx.OperatorSetIdProto]
) -> onnx.FunctionProto:
    """A function that does what a node does; inputs and outputs left open are none of its own."""
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    for field, letter in ((inner.input, "x"), (inner.output, "y")):
        field[:] = [name and f"{letter}{index}" for index, name in enumerate(field)]
    inputs, outputs = _given(inner.input), _given(inner.output)
    return helper.make_function(call.domain, call.op_type, inputs, outputs, [inner], list(imports))


def _free_domain(model: onnx.ModelProto) -> str:
    taken = {opset.domain for opset in model.opset_import}
    taken.update(function.domain for function in model.functions)
    domain = "float"
    while domain in taken:
        domain += "_"
    return domain
