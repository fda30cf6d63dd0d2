"""What 256 steps of a range cannot hold, for the sake of who reads it.

1. The input of a Softmax or LogSoftmax that is not finite, or whose steps are above 1: numbers that
   become equal then are a factor of e and more apart in what it makes. Masks of -10000 or -inf that
   are added to scores are the usual reason.
2. A divisor, or the input of a Log or Reciprocal, that comes nearer to 0 than half a step, but is
   not 0: it would become 0.

So is what passes such numbers on to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxfuse import io
from onnxfuse.calibration import Samples
from onnxfuse.graph import TensorType
from onnxfuse.messages import operator
from onnxfuse.quantization.exclusions import MOVING
from onnxfuse.runtime import load_model, open_session
from onnxfuse.shapes import infer_types

_STEPS = 255
_FLOATS = TensorProto.FLOAT, TensorProto.FLOAT16
_EXPONENTIAL = frozenset({"Softmax", "LogSoftmax"})
_NEAR_ZERO = {"Div": 1, "Log": 0, "Reciprocal": 0}
"""The operators of 2, and which of their inputs it is."""
_THROUGH = {
    True: MOVING | {"Add", "Sub", "Mul", "Div", "Where", "Clip", "Max", "Min"},
    False: MOVING
    | {"Add", "Sqrt", "Max", "Clip", "Abs", "ReduceMean", "ReduceSum", "Conv"},  # a mean, as well
}
"""What may pass such numbers on, by whether exponentials are taken of them."""


@dataclass(frozen=True)
class _Seen:
    """What a tensor holds on samples: its smallest and largest number, and that nearest to 0."""

    smallest: float = np.inf
    largest: float = -np.inf
    nearest: float = np.inf

    def joined(self, other: _Seen) -> _Seen:
        return _Seen(
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            min(self.nearest, other.nearest),
        )

    def is_too_wide(self) -> bool:
        return not (max(self.largest, 0.0) - min(self.smallest, 0.0)) / _STEPS <= 1

    def comes_too_near(self) -> bool:
        step = (max(self.largest, 0.0) - min(self.smallest, 0.0)) / _STEPS
        return 0 < self.nearest <= step / 2


def delicate(
    model: onnx.ModelProto, samples: Samples, tell: Callable[[int], None]
) -> frozenset[str]:
    """The tensors that have to stay float because of the numbers in them.

    Args:
        model: The model, its data in it.
        samples: What it is calibrated with.
        tell: Told how many samples have been run.

    Raises:
        ModelError: A sample cannot be read.
        RunError: The model does not run on one.
    """
    found = _Delicate(model)
    if not found.watched:
        return frozenset()
    found.look(samples, tell)
    return frozenset(found.tensors())


class _Delicate:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.makers = {name: node for node in model.graph.node for name in node.output if name}
        self.types = infer_types(model)
        self.seen: dict[str, _Seen] = {}
        self.read = [
            (name, operator(node) in _EXPONENTIAL)
            for node in model.graph.node
            if (name := self._delicate_input(node)) is not None
        ]
        self.watched = list(
            dict.fromkeys(name for tensor in self.read for name in self._behind(*tensor))
        )

    def _delicate_input(self, node: onnx.NodeProto) -> str | None:
        index = 0 if operator(node) in _EXPONENTIAL else _NEAR_ZERO.get(operator(node))
        name = None if index is None else str(node.input[index])
        return name if name is not None and self._is_float(name) else None

    def _is_float(self, name: str) -> bool:
        known = self.types.get(name, TensorType()).elem_type in _FLOATS
        return name in self.makers and known

    def _behind(self, name: str, exponential: bool) -> Iterator[str]:
        """A tensor, and those whose numbers it may hold, as far as they are delicate too."""
        pending, done = [name], {name}
        while pending:
            name = pending.pop()
            if name in self.seen and not self._is_delicate(name, exponential):
                continue
            yield name
            maker = self.makers[name]
            if operator(maker) in _THROUGH[exponential]:
                found = [i for i in maker.input if self._is_float(i) and i not in done]
                pending += found
                done.update(found)

    def look(self, samples: Samples, tell: Callable[[int], None]) -> None:
        """Runs the model on samples, and keeps in mind what the tensors hold."""
        changed = onnx.ModelProto()
        changed.CopyFrom(self.model)
        del changed.graph.output[:]
        changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.watched)
        with load_model(io.Source(changed), "the model") as loaded:
            session = open_session(loaded, "CPUExecutionProvider")
            for number, feeds in enumerate(samples):
                tell(number)
                for name, value in zip(self.watched, session.run(feeds), strict=True):
                    seen = self.seen.get(name, _Seen())
                    self.seen[name] = seen.joined(_seen(np.asarray(value)))

    def tensors(self) -> Iterator[str]:
        """Those that are delicate, once it is known what they hold."""
        for tensor in self.read:
            yield from self._behind(*tensor)

    def _is_delicate(self, name: str, exponential: bool) -> bool:
        seen = self.seen[name]
        return seen.is_too_wide() if exponential else seen.comes_too_near()


def _seen(value: np.ndarray[Any, Any]) -> _Seen:
    if not value.size:
        return _Seen()
    numbers = np.abs(value[value != 0])
    nearest = float(numbers.min()) if numbers.size else np.inf
    return _Seen(float(value.min()), float(value.max()), nearest)
