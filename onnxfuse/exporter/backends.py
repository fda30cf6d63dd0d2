"""The two exporters of torch, and what each result is checked for."""

from __future__ import annotations

import io as streams
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.exporter.inputs import Axes
from onnxfuse.exporter.pytorch import ExportError, quiet, require, said
from onnxfuse.exporter.subject import TRAINING, Subject
from onnxfuse.messages import bodies
from onnxfuse.shapes import default_opset

if TYPE_CHECKING:
    from torch import Tensor

Exporter: TypeAlias = Literal["dynamo", "script"]

DESCRIPTIONS: Mapping[Exporter, str] = {
    "dynamo": "torch's default exporter (dynamo)",
    "script": "the tracing exporter (script)",
}

_STACK_TRACE = "pkg.torch.onnx.stack_trace"


@dataclass(frozen=True)
class Request:
    """What an exporter is asked for.

    Attributes:
        subject: What is exported.
        tensors: The examples that it is traced with; no dynamic axis is shorter than 2.
        axes: The dynamic axes of each input.
        outputs: Names of the outputs.
        opset: The opset wanted; None for the exporter's own choice.
    """

    subject: Subject
    tensors: Sequence[Tensor]
    axes: Axes
    outputs: tuple[str, ...]
    opset: int | None

    def copies(self) -> tuple[Tensor, ...]:
        """The examples, for a module that may change them."""
        return tuple(tensor.detach().clone() for tensor in self.tensors)


def run_exporter(exporter: Exporter, request: Request) -> io.Source:
    """The model that an exporter gives, read and checked.

    Python stack traces that it notes at every node are dropped: they name files of this machine.

    Raises:
        ExportError: It raises, or its model is invalid, in training mode or not what was asked for.
    """
    with quiet():
        try:
            made = _EXPORTERS[exporter](request)
        except Exception as error:  # the exporters raise anything on what they cannot express
            raise ExportError(said(error.__cause__ or error)) from error
    try:
        source = io.read(made)
    except ModelError as error:
        raise ExportError(f"its model is invalid: {error}") from error
    _drop_stack_traces(source.model)
    _check_not_training(source.model.graph)
    _check_interface(source.model, request)
    return source


def _dynamo(request: Request) -> Any:
    torch = require()
    subject = request.subject
    shapes = [dict(named) or None for named in request.axes]
    structure: tuple[Any, ...] = tuple(shapes[: subject.varargs_from])
    if subject.varargs_from < len(shapes):
        structure = (*structure, tuple(shapes[subject.varargs_from :]))
    return torch.onnx.export(
        subject.exported,
        () if subject.is_program else request.copies(),
        input_names=list(subject.names),
        output_names=list(request.outputs),
        opset_version=request.opset,
        dynamic_shapes=None if subject.is_program or not any(shapes) else structure,
        verbose=False,
    )


def _script(request: Request) -> onnx.ModelProto:
    """Nothing is folded: every BatchNorm and every weight's arithmetic stays in the model."""
    torch = require()
    buffer = streams.BytesIO()
    names = request.subject.names
    torch.onnx.export(
        request.subject.exported,
        request.copies(),
        buffer,
        dynamo=False,
        input_names=list(names),
        output_names=list(request.outputs),
        opset_version=request.opset,
        dynamic_axes={name: dict(a) for name, a in zip(names, request.axes, strict=True) if a},
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return onnx.load_from_string(buffer.getvalue())


_EXPORTERS: Mapping[Exporter, Callable[[Request], Any]] = {"dynamo": _dynamo, "script": _script}


def _check_interface(model: onnx.ModelProto, request: Request) -> None:
    """Inputs, outputs, dynamic axes and opset are those asked for."""
    opset = default_opset(model)
    if request.opset not in (None, opset):
        raise ExportError(f"it gives opset {opset}, not {request.opset}")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = [value.name for value in model.graph.output]
    if len(outputs) != len(request.outputs):
        raise ExportError(f"its model has {len(outputs)} outputs, not {len(request.outputs)}")
    if [value.name for value in inputs] != list(request.subject.names):
        found = ", ".join(value.name for value in inputs) or "none"
        raise ExportError(
            f"the inputs of its model are {found}, not {', '.join(request.subject.names)}: "
            "an input that is not used, or a value that it took for a constant"
        )
    for value, named in zip(inputs, request.axes, strict=True):
        for axis, name in named.items():
            dim = value.type.tensor_type.shape.dim[axis]
            if dim.HasField("dim_value"):
                raise ExportError(
                    f"axis {name!r} of input {value.name!r} is fixed at {dim.dim_value}: "
                    "something in the module needs that extent"
                )


def _check_not_training(graph: onnx.GraphProto) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        given = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in given:
            constants[node.output[0]] = given["value"].t
        training = "training_mode" in given and bool(given["training_mode"].i)
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
            training = bool(np.ravel(numpy_helper.to_array(constants[node.input[2]])).any())
        if training and node.op_type == "BatchNormalization":
            raise ExportError(
                f"BatchNormalization {node.name!r} takes the statistics of its batch: it is in "
                "training mode, or has track_running_stats=False"
            )
        if training:
            raise ExportError(f"{node.op_type} {node.name!r} is in {TRAINING}")
        for body in bodies(node):
            _check_not_training(body)


def _drop_stack_traces(model: onnx.ModelProto) -> None:
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        _drop_from(nodes)


def _drop_from(nodes: Any) -> None:
    for node in nodes:
        for index in reversed(range(len(node.metadata_props))):
            if node.metadata_props[index].key == _STACK_TRACE:
                del node.metadata_props[index]
        for body in bodies(node):
            _drop_from(body.node)
