"""The range of each channel of each tensor, over samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfuse import io
from onnxfuse.calibration.samples import Samples
from onnxfuse.messages import all_names
from onnxfuse.runtime import load_model, open_session
from onnxfuse.shapes import default_opset, infer_types

Ranges = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
_FLOATS = TensorProto.FLOAT, TensorProto.FLOAT16
_AXES_ARE_INPUTS = 18  # the opset from which ReduceMax and ReduceMin take them so


def channel_ranges(
    source: io.Source,
    samples: Samples,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Ranges:
    """Runs a model on samples and keeps the smallest and largest value of every channel.

    The extremes are taken inside the model (ONNX operators ReduceMin and ReduceMax), so that no
    more than two numbers a channel are held for any tensor.

    Args:
        source: The model.
        samples: What to run it on.
        threads: Threads within an operator; None for the runtime's choice.
        progress: Called with how many runs are done.

    Returns:
        By name, for each float tensor of the main graph with a second axis: (2, C) float64, the
        smallest and the largest value of each index along that axis.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or a sample cannot be read.
        RunError: The model does not run on a sample.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    added = _with_extremes(model)
    watched = io.Source(model, source.path, source.external, source.files)
    found: Ranges = {}
    if not added:
        return found
    with load_model(watched, source.name) as loaded:
        session = open_session(loaded, "CPUExecutionProvider", threads=threads)
        outputs = [name for pair in added.values() for name in pair]
        for number, feeds in enumerate(samples):
            values = session.run(feeds, outputs)
            for name, low, high in zip(added, values[::2], values[1::2], strict=True):
                both = np.stack([low, high]).astype(np.float64)
                if name in found:
                    both = np.stack(
                        [np.minimum(found[name][0], both[0]), np.maximum(found[name][1], both[1])]
                    )
                found[name] = both
            if progress is not None:
                progress(number + 1)
    return found


def _with_extremes(model: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Adds outputs with the extremes of each channel, in place; their names, by tensor."""
    graph, types = model.graph, infer_types(model)
    made = [value.name for value in graph.input]
    made += [name for node in graph.node for name in node.output if name]
    weights = {tensor.name for tensor in graph.initializer}
    taken = set(all_names(graph))
    added: dict[str, tuple[str, str]] = {}
    for name in made:
        kind = types.get(name)
        if name in weights or kind is None or kind.elem_type not in _FLOATS:
            continue
        if kind.shape is None or len(kind.shape) < 2:
            continue
        cast = _fresh(f"{name}_float", taken)
        graph.node.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT))
        axes = [axis for axis in range(len(kind.shape)) if axis != 1]
        pair = []
        for operator in ("ReduceMin", "ReduceMax"):
            pair.append(_fresh(f"{name}_{operator}", taken))
            graph.node.append(_reduction(model, operator, cast, pair[-1], axes, taken))
            graph.output.append(helper.make_tensor_value_info(pair[-1], TensorProto.FLOAT, None))
        added[name] = (pair[0], pair[1])
    return added


def _reduction(
    model: onnx.ModelProto, operator: str, given: str, made: str, axes: list[int], taken: set[str]
) -> onnx.NodeProto:
    if default_opset(model) < _AXES_ARE_INPUTS:
        return helper.make_node(operator, [given], [made], axes=axes, keepdims=0)
    name = _fresh(f"{made}_axes", taken)
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(axes)], axes))
    if model.ir_version < 4:
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.INT64, [len(axes)])
        )
    return helper.make_node(operator, [given, name], [made], keepdims=0)


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{name}_"
    taken.add(name)
    return name
