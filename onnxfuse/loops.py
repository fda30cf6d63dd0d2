"""States of Loops, whose shapes may change from one iteration to the next.

What a body declares of a state's shape holds in every iteration if it holds in the first, and if
from it follows the same for what the body makes of the state. A file may declare what is true of
the first iteration alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnxfuse.messages import bodies, operator

_ROUNDS = 8
_BEFORE_STATES = 2  # the number of the iteration, and the condition


def forget_unsteady_states(model: onnx.ModelProto) -> None:
    """Clears what the bodies of Loops declare of their states' shapes where it does not follow.

    Args:
        model: A model whose graphs declare nothing but their inputs; changed.
    """
    for _ in range(_ROUNDS):
        if not any(True for _ in _states(model.graph, model.graph)):
            return
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except onnx.shape_inference.InferenceError:
            break
        cleared = [_cleared(given, made) for given, made in _states(model.graph, inferred)]
        if not any(cleared):
            return
    for given, _ in _states(model.graph, model.graph):
        given.type.tensor_type.ClearField("shape")


def _states(
    graph: onnx.GraphProto, inferred: onnx.GraphProto
) -> Iterator[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]:
    """The states whose shape is declared: what a body is given, and what it makes of it."""
    for node, known in zip(graph.node, inferred.node, strict=True):
        for body, typed in zip(bodies(node), bodies(known), strict=True):
            yield from _states(body, typed)
            if operator(node) == "Loop":
                pairs = zip(body.input[_BEFORE_STATES:], typed.output[1:], strict=False)
                yield from (pair for pair in pairs if pair[0].type.tensor_type.HasField("shape"))


def _cleared(given: onnx.ValueInfoProto, made: onnx.ValueInfoProto) -> bool:
    """Clears of a state what is another in the next iteration, or unknown; True if there is any."""
    before, after = given.type.tensor_type, made.type.tensor_type.shape.dim
    if len(before.shape.dim) != len(after):
        before.ClearField("shape")
        return True
    changed = False
    for dim, other in zip(before.shape.dim, after, strict=True):
        if dim.WhichOneof("value") and dim != other:
            dim.Clear()
            changed = True
    return changed
