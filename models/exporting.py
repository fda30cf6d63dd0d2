"""PyTorch modules as ONNX models, in the three forms in which they reach an optimizer.

"dynamo": torch's default exporter, which folds a BatchNorm into the convolution before it.
"script": the older, tracing exporter, which does the same.
"script_unfolded": the older exporter told to fold nothing, so that each BatchNorm is still a node.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Literal, get_args

import onnx
import torch
from torch import nn

Form = Literal["dynamo", "script", "script_unfolded"]
FORMS: tuple[Form, ...] = get_args(Form)

SPATIAL_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def export(module: nn.Module, args: torch.Tensor, form: Form, dynamic: bool) -> onnx.ModelProto:
    """The ONNX model of a module with one input, called "input".

    One output is called "output", several are called "output_0", "output_1" and so on.

    Args:
        module: a module in eval mode.
        args: example input (N, C, *S); with `dynamic`, N and S must not be 1, since torch's default
            exporter takes an extent of 1 for a constant.
        form: the exporter and its settings, see above.
        dynamic: whether batch and spatial axes are symbolic ("batch", "height", "width", ...)
            rather than fixed at the example's.
    """
    if module.training:
        raise ValueError("the module is in training mode; call module.eval() first")
    names = dict(enumerate(("batch", None, *SPATIAL_NAMES[args.ndim - 2])))
    axes = {axis: name for axis, name in names.items() if name is not None}
    outputs = _output_names(module, args)
    with _quiet():
        if form == "dynamo":
            return _export_dynamo(module, args, outputs, axes if dynamic else None)
        unfolded = form == "script_unfolded"
        return _export_script(module, args, outputs, axes if dynamic else None, unfolded)


@torch.no_grad()
def _output_names(module: nn.Module, x: torch.Tensor) -> list[str]:
    outputs = module(x)
    if isinstance(outputs, torch.Tensor):
        return ["output"]
    return [f"output_{index}" for index in range(len(outputs))]


def _export_dynamo(
    module: nn.Module, x: torch.Tensor, outputs: list[str], axes: dict[int, str] | None
) -> onnx.ModelProto:
    shapes = None
    if axes is not None:
        shapes = ({axis: torch.export.Dim(name) for axis, name in axes.items()},)
    program = torch.onnx.export(
        module,
        (x,),
        input_names=["input"],
        output_names=outputs,
        dynamic_shapes=shapes,
        verbose=False,
    )
    return program.model_proto


def _export_script(
    module: nn.Module,
    x: torch.Tensor,
    outputs: list[str],
    axes: dict[int, str] | None,
    unfolded: bool,
) -> onnx.ModelProto:
    mode = torch.onnx.TrainingMode
    dynamic_axes = None
    if axes is not None:
        dynamic_axes = {"input": axes, **{name: {0: axes[0]} for name in outputs}}
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        (x,),
        buffer,
        dynamo=False,
        input_names=["input"],
        output_names=outputs,
        dynamic_axes=dynamic_axes,
        do_constant_folding=not unfolded,
        training=mode.PRESERVE if unfolded else mode.EVAL,
    )
    return onnx.load_from_string(buffer.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters: deprecation warnings, and log lines on packages that are absent."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
