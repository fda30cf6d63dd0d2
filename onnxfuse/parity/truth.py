"""What both models are held against: the first model in float64, or as the runtime computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse.parity.evaluator import Value
from onnxfuse.parity.rounding import move, roundoff, structure
from onnxfuse.parity.spread import unequal
from onnxfuse.runtime import Loaded, RunError, load_model, open_session

DRAWS = 2
_WITHOUT_FLOAT64 = 16
"""Roundings by which constants and inputs are moved where nothing but the runtime can be compared
with: what its operators round has to be explained by them alone."""


@dataclass(frozen=True)
class Leaf:
    """One array of an output, as it should be.

    Attributes:
        name: Name of the output; with the place in it, where the output is a sequence.
        value: The array.
        draws: The same with other roundings.
    """

    name: str
    value: np.ndarray[Any, Any]
    draws: tuple[np.ndarray[Any, Any], ...]


def leaves(name: str, value: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays that an output is made of: sequences by their index, a list of maps as a table."""
    if value is None:
        return {name: np.empty(0)}
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        keys = sorted(value[0], key=str)
        if all(set(row) == set(keys) for row in value):
            return {name: np.array([[row[key] for key in keys] for row in value])}
    if isinstance(value, (list, tuple)):
        parts = (leaves(f"{name}[{index}]", item) for index, item in enumerate(value))
        return {label: array for part in parts for label, array in part.items()}
    return {name: np.asarray(value)}


def expected(names: Sequence[str], values: Sequence[Value]) -> dict[str, Leaf]:
    """Leaves of outputs that were evaluated with draws, by label."""
    found: dict[str, Leaf] = {}
    for name, value in zip(names, values, strict=True):
        base, *draws = (leaves(name, one) for one in value)
        for label, array in base.items():
            others = tuple(draw[label] for draw in draws if label in draw)
            found[label] = Leaf(label, array, others)
    return found


def with_draws_of(values: Sequence[Value], other: Sequence[Value]) -> list[Value]:
    """The first model's outputs, with the second's draws besides: what either rounds counts.

    Args:
        values: The first model's outputs.
        other: The second's, in the same order, evaluated with draws.
    """
    return [
        (*own, *_carried_over(own[0], theirs)) for own, theirs in zip(values, other, strict=True)
    ]


def _carried_over(truth: Any, value: Value) -> list[Any]:
    """Another model's draws, as far from the truth as they are from that model's own value."""
    base, *draws = value
    arrays = isinstance(truth, np.ndarray) and isinstance(base, np.ndarray)
    if not arrays or (truth.shape, truth.dtype) != (base.shape, base.dtype):
        return []
    fitting = [d for d in draws if (d.shape, d.dtype) == (base.shape, base.dtype)]
    if truth.dtype.kind != "f":
        return [np.where(unequal(draw, base), draw, truth) for draw in fitting]
    with np.errstate(all="ignore"):
        return [truth + (draw - base) for draw in fitting]


def from_runtime(first: Loaded, feeds: Sequence[Mapping[str, Any]]) -> list[list[Value]]:
    """The outputs as the runtime computes them, its optimizer off; and with weights moved.

    Args:
        first: The model.
        feeds: Sets of inputs.

    Returns:
        For each set of inputs, the outputs and their draws.
    """
    runs: list[list[list[Any] | None]] = []
    for draw in range(DRAWS + 1):
        with load_model(_moved_model(first, draw), first.name) as loaded:
            session = open_session(loaded, "CPUExecutionProvider", optimization="off")
            runs.append(
                [
                    _run(session, _moved_feeds(one, draw)) if draw else session.run(one)
                    for one in feeds
                ]
            )
    results: list[list[Value]] = []
    for base, *draws in zip(*runs, strict=True):
        assert base is not None
        known = [draw for draw in draws if draw is not None]
        results.append([(b, *(d[i] for d in known)) for i, b in enumerate(base)])
    return results


def _run(session: Any, feeds: Mapping[str, Any]) -> list[Any] | None:
    try:
        return list(session.run(feeds))
    except RunError:  # moved indices or sizes may not fit together
        return None


def _moved_feeds(feeds: Mapping[str, Any], draw: int) -> dict[str, Any]:
    return {name: _moved(value, name, draw) for name, value in feeds.items()}


def _moved(value: Any, name: str, draw: int) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    amount = _WITHOUT_FLOAT64 * roundoff(value.dtype.name)
    return move(value, name, draw, amount).astype(value.dtype)


def _moved_model(first: Loaded, draw: int) -> Any:
    """A copy of the model with its constants moved; the model itself for draw 0."""
    if not draw:
        return first.source
    source = first.source
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    fixed = structure(model.graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for name, tensor in constants.items():
        value = source.load(tensor)
        moved = value if name in fixed else _moved(value, name, draw)
        if moved is not value:
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return replace(source, model=model)
