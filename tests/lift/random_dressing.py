"""What may be around a random graph: overridable weights, unknown shapes."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, helper


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
