"""What may be around a random graph: local functions, overridable weights, unknown shapes."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, helper

from onnxfuse.graph import names_read

LOCAL = "local"


def move_into_function(draw: Callable, model: ModelProto) -> None:
    """Replaces some nodes in a row by a call of a function of the model's own."""
    graph = model.graph
    first = draw(st.integers(0, len(graph.node) - 1))
    last = first
    most = first + draw(st.integers(1, 5))
    while last < min(most, len(graph.node)) and _is_movable(graph.node[last]):
        last += 1
    inside, after = list(graph.node)[first:last], list(graph.node)[last:]
    made = [name for node in inside for name in node.output if name]
    rest = onnx.GraphProto(node=after, output=graph.output)
    wanted = set(names_read(rest))
    outputs = [name for name in made if name in wanted]
    if not outputs:
        return
    inputs = list(dict.fromkeys(n for node in inside for n in node.input if n and n not in made))
    function = helper.make_function(
        LOCAL, "Part", inputs, outputs, inside, list(model.opset_import)
    )
    call = helper.make_node("Part", inputs, outputs, name="part", domain=LOCAL)
    before = list(graph.node)[:first]
    del graph.node[:]
    graph.node.extend([*before, call, *after])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid(LOCAL, 1))
    model.ir_version = max(model.ir_version, 8)


def _is_movable(node: NodeProto) -> bool:
    """Not so for bodies, which cannot capture there, and for QuantizeLinear, which is looked at."""
    bodies = any(a.type == AttributeProto.GRAPH for a in node.attribute)
    return not bodies and node.op_type != "QuantizeLinear"


def make_overridable(draw: Callable, model: ModelProto, elem_type: int) -> tuple[str, ...]:
    """Lists one or two weights among the inputs, so that whoever runs the model may change them."""
    weights = [t for t in model.graph.initializer if t.data_type == elem_type]
    if not weights:
        return ()
    chosen = draw(st.lists(st.sampled_from(range(len(weights))), min_size=1, max_size=2))
    names = tuple(dict.fromkeys(weights[index].name for index in chosen))
    _list(model, names)
    return names


def list_initializers(model: ModelProto) -> None:
    """IR version 3: every initializer is an input; left out where bodies have some of their own."""
    bodies = [a.g for n in model.graph.node for a in n.attribute if a.type == AttributeProto.GRAPH]
    if not bodies:
        _list(model, [tensor.name for tensor in model.graph.initializer])
        model.ir_version = 3


def _list(model: ModelProto, names: list[str] | tuple[str, ...]) -> None:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    model.graph.input.extend(
        helper.make_tensor_value_info(name, tensors[name].data_type, tensors[name].dims)
        for name in names
    )


def change_declarations(draw: Callable, model: ModelProto) -> None:
    """Declares every inner shape, or forgets names of dimensions and shapes of outputs."""
    if draw(st.booleans()):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
        kept = [info for info in inferred if draw(st.integers(0, 3))]
        model.graph.value_info.extend(kept)
    infos = [*model.graph.output] if draw(st.booleans()) else []
    if draw(st.booleans()):
        infos += model.graph.input
    for info in infos:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param or info in model.graph.output:
                dim.Clear()
