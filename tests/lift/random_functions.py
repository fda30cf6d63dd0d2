"""Local functions around parts of a random graph: constants of their own, attributes passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx
from hypothesis import strategies as st
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, helper

from onnxfuse.io.order import captured
from onnxfuse.messages import bodies, names_read
from tests.lift.comparing import FLOATS

LOCAL = "local"
_PASSED = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT)


def move_into_function(draw: Callable, model: ModelProto) -> None:
    """Replaces some nodes in a row by a call of a function of the model's own."""
    graph = model.graph
    first = draw(st.integers(0, len(graph.node) - 1))
    last = first
    most = first + draw(st.integers(1, 5))
    while last < min(most, len(graph.node)) and _is_movable(graph.node[last]):
        last += 1
    before, after = list(graph.node)[:first], list(graph.node)[last:]
    inside = list(graph.node)[first:last]
    made = {name for node in inside for name in node.output if name}
    wanted = set(names_read(onnx.GraphProto(node=after, output=graph.output)))
    outputs = [name for node in inside for name in node.output if name in made & wanted]
    if not outputs:
        return
    constants = _own_constants(draw, model, inside, [*before, *after])
    made.update(name for node in constants for name in node.output)
    inputs = [name for name in dict.fromkeys(_reads(inside)) if name not in made]
    name = f"Part{len(model.functions)}"
    function = helper.make_function(
        LOCAL, name, inputs, outputs, [*constants, *inside], list(model.opset_import)
    )
    given = _pass_attributes(draw, function)
    call = helper.make_node(name, inputs, outputs, name=name, domain=LOCAL)
    call.attribute.extend(given)
    del graph.node[:]
    graph.node.extend([*before, call, *after])
    if not model.functions:
        model.opset_import.append(helper.make_opsetid(LOCAL, 1))
    model.functions.append(function)
    model.ir_version = max(model.ir_version, 9 if function.attribute_proto else 8)


def _is_movable(node: NodeProto) -> bool:
    """Not so for QuantizeLinear, which is looked at."""
    return node.op_type != "QuantizeLinear"


def _reads(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """What nodes read, bodies included, of what is not in their bodies."""
    for node in nodes:
        yield from filter(None, node.input)
        for body in bodies(node):
            yield from captured(body)


def _own_constants(
    draw: Callable, model: ModelProto, inside: list[NodeProto], around: list[NodeProto]
) -> list[NodeProto]:
    """Moves weights that nobody else reads into Constant nodes."""
    graph = model.graph
    others = set(names_read(onnx.GraphProto(node=around, output=graph.output)))
    own = set(_reads(inside)) - others
    floats_alone = model.opset_import[0].version < 9
    chosen = [
        tensor
        for tensor in graph.initializer
        if tensor.name in own
        and (tensor.data_type in FLOATS or not floats_alone)
        and draw(st.booleans())
    ]
    kept = [t for t in graph.initializer if t not in chosen]
    nodes = [helper.make_node("Constant", [], [t.name], value=_unnamed(t)) for t in chosen]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return nodes


def _unnamed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.ClearField("name")
    return copy


def _pass_attributes(draw: Callable, function: FunctionProto) -> list[AttributeProto]:
    """Lets the call, or a default, give some attributes of the nodes in a function."""
    given = []
    for number, node in enumerate(function.node):
        for attribute in node.attribute:
            if attribute.type not in _PASSED or draw(st.integers(0, 2)):
                continue
            value = AttributeProto()
            value.CopyFrom(attribute)
            value.name = f"{attribute.name}_{number}"
            if draw(st.integers(0, 3)):
                given.append(value)
                function.attribute.append(value.name)
            else:
                function.attribute_proto.append(value)
            kind = attribute.type
            name = attribute.name
            attribute.Clear()
            attribute.name, attribute.type, attribute.ref_attr_name = name, kind, value.name
    return given
