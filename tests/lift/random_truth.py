"""The outputs of random models in float64, local functions and overridden weights included."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.lift.comparing import distance, is_float, widened
from tests.lift.oracle import OWN
from tests.lift.random_functions import LOCAL

Feeds = dict[str, np.ndarray]
MOVES = 4


class QuantizeLinear(OpRun):
    """To 8 bits, by tensor or by axis, at all opsets."""

    op_domain = ""

    def _run(self, x, scale, zero, axis=None, **_):  # type: ignore[no-untyped-def]
        limits = np.iinfo(zero.dtype)
        scale, zero = _along(scale, x, axis), _along(zero, x, axis)
        codes = np.rint(x / scale) + zero
        return (np.clip(codes, limits.min, limits.max).astype(limits.dtype),)


class DequantizeLinear(OpRun):
    """From 8 bits, by tensor or by axis, at all opsets; onnx's own begins at opset 19."""

    op_domain = ""

    def _run(self, x, scale, zero, axis=None, **_):  # type: ignore[no-untyped-def]
        wide = x.astype(np.float64) - _along(zero, x, axis)
        return (wide * _along(scale, x, axis),)


def _along(value: np.ndarray, x: np.ndarray, axis: int | None) -> np.ndarray:
    if value.ndim == 0:
        return value.astype(np.float64)
    shape = [1] * x.ndim
    shape[1 if axis is None else axis] = -1
    return value.astype(np.float64).reshape(shape)


def truth(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model without functions, every float widened to float64."""
    ops = [*OWN, QuantizeLinear, DequantizeLinear]
    session = ReferenceEvaluator(widened(model), new_ops=ops)
    values = {n: v.astype(np.float64) if is_float(v) else v for n, v in feeds.items()}
    with np.errstate(all="ignore"):
        return [np.asarray(value) for value in session.run(None, values)]


def inlined(model: ModelProto, overrides: Mapping[str, np.ndarray]) -> ModelProto:
    """Functions in place, and other values for initializers; inputs are those without a value."""
    flat = ModelProto()
    flat.CopyFrom(model)
    if model.functions:
        _give_defaults(flat)
        flat = inliner.inline_local_functions(flat)
    for tensor in flat.graph.initializer:
        if tensor.name in overrides:
            tensor.CopyFrom(numpy_helper.from_array(overrides[tensor.name], tensor.name))
    weights = {tensor.name for tensor in flat.graph.initializer}
    kept = [info for info in flat.graph.input if info.name not in weights]
    del flat.graph.input[:]
    flat.graph.input.extend(kept)
    return flat


def _give_defaults(model: ModelProto) -> None:
    """Writes defaults of attributes into the calls of functions: onnx's inliner drops them."""
    functions = {function.name: function for function in model.functions}
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    for node in nodes:
        if node.domain == LOCAL:
            given = {attribute.name for attribute in node.attribute}
            defaults = functions[node.op_type].attribute_proto
            node.attribute.extend(a for a in defaults if a.name not in given)


def spread(model: ModelProto, feeds: Feeds, epsilon: float) -> list[float]:
    """By output, how far it moves when each constant and input moves by a rounding of its type."""
    exact = truth(model, feeds)
    rng = np.random.default_rng(1)
    farthest = [0.0] * len(exact)
    for _ in range(MOVES):
        moved = ModelProto()
        moved.CopyFrom(widened(model))
        _move(moved.graph, epsilon, rng)
        given = {n: _moved(v, epsilon, rng) for n, v in feeds.items()}
        for index, value in enumerate(truth(moved, given)):
            farthest[index] = max(farthest[index], distance(value, exact[index]))
    return farthest


def _move(graph: onnx.GraphProto, epsilon: float, rng: np.random.Generator) -> None:
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if is_float(value):
            tensor.CopyFrom(numpy_helper.from_array(_moved(value, epsilon, rng), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _move(attribute.g, epsilon, rng)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                value = _moved(numpy_helper.to_array(attribute.t), epsilon, rng)
                attribute.t.CopyFrom(numpy_helper.from_array(value))


def _moved(value: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    if not is_float(value):
        return value
    wide = value.astype(np.float64)
    return np.asarray(wide * (1 + epsilon * rng.choice([-1.0, 1.0], wide.shape)))
