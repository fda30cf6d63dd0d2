"""What the quantizer adds to a model, or takes from it, besides numbers."""

from __future__ import annotations

import onnx

_KEPT = (
    *("producer_name", "producer_version", "domain", "model_version", "doc_string"),
    *("metadata_props", "functions", "training_info"),
)


def restored(made: onnx.ModelProto, given: onnx.ModelProto) -> onnx.ModelProto:
    """A quantized model with everything else as in the float one, in place.

    Inputs and outputs have the float model's types and symbolic dimensions; the types of tensors
    inside that it declared are declared still, and no others.
    """
    for name in _KEPT:
        _copied(made, given, name)
    for name in ("name", "doc_string", "input", "output", "metadata_props"):
        _copied(made.graph, given.graph, name)
    there = {name for node in made.graph.node for name in node.output}
    del made.graph.value_info[:]
    made.graph.value_info.extend(info for info in given.graph.value_info if info.name in there)
    return made


def _copied(
    made: onnx.ModelProto | onnx.GraphProto, given: onnx.ModelProto | onnx.GraphProto, name: str
) -> None:
    made.ClearField(name)
    held = given.DESCRIPTOR.fields_by_name[name]
    if held.is_repeated:
        getattr(made, name).extend(getattr(given, name))
    elif given.HasField(name):
        setattr(made, name, getattr(given, name))
