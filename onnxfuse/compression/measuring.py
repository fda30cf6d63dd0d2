"""What a model's outputs are on ONNX Runtime, and how far another's are from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxfuse import io
from onnxfuse.benchmark.cases import made_cases
from onnxfuse.compression.result import OutputError
from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds, RunError, load_model, open_session
from onnxfuse.runtime.providers import require_provider
from onnxfuse.runtime.session import Session

Outputs = list[list[Any]]


class Reference:
    """A float model's outputs, on sets of inputs that are given or made.

    Attributes:
        feeds: The sets of inputs.
        inputs: What they are, in words.
        outputs: For each set, the outputs.
    """

    def __init__(
        self, source: io.Source, samples: Sequence[Mapping[str, NDArray[Any]]] | None
    ) -> None:
        """Runs the model.

        Args:
            source: The model.
            samples: Sets of inputs by name; None for one of random numbers, at sizes at which the
                model runs.

        Raises:
            ModelError: ONNX Runtime cannot load it.
            RunError: It runs on none of the inputs.
        """
        with ExitStack() as stack:
            loaded = stack.enter_context(load_model(source, source.name))
            session = open_session(loaded, require_provider("cpu"))
            self.feeds: list[Feeds]
            if samples is None:
                (case,) = made_cases(loaded, session, {}, ())
                shapes = (f"{n} {'x'.join(map(str, s))}" for n, s in case.shapes.items())
                self.inputs, self.feeds = f"random ({', '.join(shapes)})", [case.feeds]
            else:
                self.inputs, self.feeds = "given", [dict(sample) for sample in samples]
            self.outputs = run_all(session, self.feeds)

    def error(self, outputs: Outputs) -> OutputError:
        """How far outputs on the same inputs are off.

        Raises:
            RunError: There is no measure: shapes differ, or all numbers are zero.
        """
        squares = self._squares(outputs)
        if squares is None:
            raise RunError("an output's shape depends on the weights' values")
        rest, whole = squares
        if not whole:
            raise RunError("its floating-point outputs are zero, or there are none")
        relative = _relative(rest, whole)
        snr = -20 * math.log10(relative) if relative else math.inf
        return OutputError(relative, snr, len(self.feeds), self.inputs)

    def change(self, outputs: Outputs) -> float:
        """How far outputs of the same network are off: in relative L2, if they are floating-point.

        If not, it is the share of numbers that differ. It is infinite where shapes differ.
        """
        squares = self._squares(outputs)
        if squares is None:
            return math.inf
        rest, whole = squares
        if rest or whole:
            return _relative(rest, whole)
        others = [(a, b) for a, b in self._arrays(outputs) if a.dtype.kind != "f"]
        total = sum(first.size for first, _ in others)
        return sum(int(np.sum(first != second)) for first, second in others) / max(1, total)

    def _squares(self, outputs: Outputs) -> tuple[float, float] | None:
        """||y - y'||^2 and ||y||^2 over what is finite in y; None where shapes differ."""
        rest, whole = 0.0, 0.0
        for first, second in self._arrays(outputs):
            if first.shape != second.shape:
                return None
            if first.dtype.kind == "f":
                a, b = first.astype(np.float64), second.astype(np.float64)
                finite = np.isfinite(a)
                rest += float(np.sum((a[finite] - b[finite]) ** 2))
                whole += float(np.sum(a[finite] ** 2))
        return rest, whole

    def _arrays(self, outputs: Outputs) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for expected, found in zip(self.outputs, outputs, strict=True):
            for first, second in zip(expected, found, strict=True):
                if isinstance(first, np.ndarray):
                    yield first, second


def _relative(rest: float, whole: float) -> float:
    """The relative distance; infinite where numbers are no longer finite, or are no longer zero."""
    return math.sqrt(rest / whole) if whole and math.isfinite(rest) else math.inf


def outputs_of(source: io.Source, feeds: Sequence[Feeds]) -> Outputs:
    """A model's outputs on sets of inputs.

    Raises:
        ModelError: ONNX Runtime cannot load it.
        RunError: ONNX Runtime cannot run it on them.
    """
    with load_model(source, source.name) as loaded:
        return run_all(open_session(loaded, require_provider("cpu")), feeds)


def run_all(session: Session, feeds: Sequence[Feeds]) -> Outputs:
    """A session's outputs on sets of inputs; raises RunError."""
    return [session.run(one) for one in feeds]


def runs_opset(opset: int) -> bool:
    """Whether the installed ONNX Runtime loads models of an opset at all."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value], [result])
    imports = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(imports, ignore_unknown=True)
    model = helper.make_model(graph, opset_imports=imports, ir_version=version)
    try:
        with load_model(model) as loaded:
            open_session(loaded, require_provider("cpu"))
    except ModelError:
        return False
    return True
