"""Checks of the nodes of standard operators against the definitions of these.

Models have many nodes and few kinds of them. What onnx checks of a node is its attributes and how
many inputs and outputs it has, so one node of each kind is checked.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto

from onnxfuse.hollow import HOLDING, Emptied, hollow_into
from onnxfuse.io.checks import called
from onnxfuse.messages import attributes, bodies
from onnxfuse.shapes import ASIDE, default_opset, schema


def check_nodes(model: onnx.ModelProto) -> None:
    """Checks the nodes of standard operators against the definitions of these.

    Runtimes do without much else that onnx asks for, so this asks for nothing else.

    Raises:
        onnx.checker.ValidationError: Naming the node and what is wrong with it.
    """
    opset = default_opset(model)
    graph = onnx.GraphProto(name="graph")
    graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ()))
    for index, node in enumerate(_specimens(model.graph)):
        specimen = graph.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        specimen.input.extend("x" if name else "" for name in node.input)
        specimen.output.extend(
            f"y{index}.{number}" if name else "" for number, name in enumerate(node.output)
        )
        specimen.attribute.extend(map(_light, node.attribute))
        found = schema(node.op_type, opset, "")
        if node.domain not in ("", "ai.onnx") or found is None or found.deprecated:
            specimen.domain = ASIDE
        else:
            _check_numbers(node)
    for function in model.functions:
        for node in function.node:
            _check_numbers(node)
    imports = [onnx.helper.make_opsetid(*i) for i in (("", max(opset, 1)), (ASIDE, 1))]
    onnx.checker.check_model(onnx.ModelProto(ir_version=8, graph=graph, opset_import=imports))


def _check_numbers(node: onnx.NodeProto) -> None:
    """Checks what onnx does not, and takes for granted when it infers shapes."""
    given = attributes(node)
    if node.op_type == "Split" and getattr(given.get("num_outputs"), "i", 0) > len(node.output):
        raise onnx.checker.ValidationError(f"{called(node)} has fewer outputs than num_outputs")
    if node.op_type == "GatherND" and getattr(given.get("batch_dims"), "i", 0) < 0:
        raise onnx.checker.ValidationError(f"{called(node)} has negative batch_dims")


def _specimens(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """One node of each kind, those in bodies included."""
    seen: set[tuple[object, ...]] = set()
    pending = [graph]
    while pending:
        for node in pending.pop().node:
            pending.extend(bodies(node))
            kind = (
                node.op_type,
                node.domain,
                tuple(map(bool, node.input)),
                tuple(map(bool, node.output)),
                *[_light(attribute).SerializeToString() for attribute in node.attribute],
            )
            if kind not in seen:
                seen.add(kind)
                yield node


def _light(attribute: AttributeProto) -> AttributeProto:
    """The attribute with its bodies, and the data of its big tensors, left out."""
    if attribute.type not in HOLDING:
        return attribute
    light = AttributeProto()
    emptied: Emptied = []
    if attribute.type == AttributeProto.GRAPH:
        light.name, light.type, light.g.name = attribute.name, attribute.type, "body"
        return light
    if attribute.type == AttributeProto.GRAPHS:
        light.name, light.type = attribute.name, attribute.type
        light.graphs.extend(onnx.GraphProto(name="body") for _ in attribute.graphs)
        return light
    hollow_into(attribute, light, emptied)
    for _, tensor in emptied:  # an empty tensor needs no data
        tensor.ClearField("data_location")
        tensor.dims[:] = [0]
    return light
