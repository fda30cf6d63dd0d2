"""ONNX Runtime against PyTorch on the same inputs.

Both run in the model's own type and round in other places. How much rounding a network amplifies is
measured in PyTorch; ONNX Runtime may be a few times as far from it. An operator that means
something else is much farther.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxfuse import io
from onnxfuse.errors import ParityError
from onnxfuse.exporter.distance import bound, distance, rounding, worst_slice
from onnxfuse.exporter.expected import Expected, as_array
from onnxfuse.exporter.inputs import show_shape
from onnxfuse.exporter.pytorch import ExportError, said

if TYPE_CHECKING:
    from onnxfuse.graph import Array


@dataclass(frozen=True)
class Parity:
    """One output of a model, ONNX Runtime against PyTorch.

    Attributes:
        output: Its name.
        inputs: Shapes of the inputs, and "negated" where they were the examples with other signs.
        error: Relative L2 distance between ONNX Runtime and PyTorch; for integers and booleans the
            share of elements that differ. NaN and infinities count as equal to themselves.
        largest: Largest absolute difference.
        rounding: How far PyTorch is, by the same measure, from itself in float64 or with inputs
            moved by one rounding; None where it runs in neither way.
        bound: What `error` may be at most.
    """

    output: str
    inputs: str
    error: float
    largest: float
    rounding: float | None
    bound: float

    @property
    def agrees(self) -> bool:
        """True when the error is explained by rounding."""
        return self.error <= self.bound


def compare(source: io.Source, names: Sequence[str], cases: Sequence[Expected]) -> list[Parity]:
    """Runs a model for each case, and measures how far it is from PyTorch.

    Args:
        source: The model; outputs in the order of the cases'.
        names: Names of its inputs.
        cases: What PyTorch gives, first at the examples.

    Raises:
        ExportError: ONNX Runtime cannot load the model, or cannot run it where PyTorch does.
        ParityError: An output is off by more than rounding.
    """
    found: list[Parity] = []
    with _session(source) as run:
        for case in cases:
            try:
                outputs = run({n: as_array(t) for n, t in zip(names, case.tensors, strict=True)})
            except Exception as error:  # the runtime raises types of its own, C++ ones
                why = said(error)
                if case.shapes != cases[0].shapes:
                    why = "the exporter has written the example's sizes into it"
                raise ExportError(
                    f"ONNX Runtime cannot run its model on {case.label}: {why}"
                ) from error
            if len(outputs) != len(case.outputs):
                raise ParityError(
                    f"on {case.label} its model gives {len(outputs)} outputs, PyTorch "
                    f"{len(case.outputs)}"
                )
            exact = not any(tensor.dtype.is_floating_point for tensor in case.tensors)
            for (name, expected), value in zip(case.outputs.items(), outputs, strict=True):
                rounded, actual = [other[name] for other in case.rounded], np.asarray(value)
                found.append(_checked(name, case.label, actual, expected, rounded, exact))
    return found


def _checked(
    name: str, label: str, actual: Array, expected: Array, rounded: Sequence[Array], exact: bool
) -> Parity:
    """The comparison of one output; raises ParityError if it differs."""
    parity = measure(name, label, actual, expected, rounded, exact=exact)
    what = f"on {label} output {name!r} of ONNX Runtime"
    for ours, theirs, kind in (
        (show_shape(actual.shape), show_shape(expected.shape), "is"),
        (actual.dtype.name, expected.dtype.name, "is of type"),
    ):
        if ours != theirs:
            raise ParityError(f"{what} {kind} {ours}, in PyTorch {theirs}")
    if not parity.agrees:
        raise ParityError(
            f"{what} differs from PyTorch's by {parity.error:.1e}, where rounding explains "
            f"{parity.bound:.1e}"
        )
    place = worst_slice(actual, expected, rounded)
    if place is not None:
        raise ParityError(f"{what} differs from PyTorch's in {place}, by more than rounding")
    return parity


def measure(
    output: str,
    inputs: str,
    actual: Array,
    expected: Array,
    rounded: Sequence[Array],
    *,
    exact: bool = False,
) -> Parity:
    """Compares one output; see `Parity`.

    Args:
        output: Its name.
        inputs: What it was computed from, in words.
        actual: ONNX Runtime's.
        expected: PyTorch's.
        rounded: PyTorch's with other roundings.
        exact: Whether nothing is rounded, since no input is of a floating type.
    """
    error, largest = distance(actual, expected)
    measured = rounding(expected, rounded)
    return Parity(output, inputs, error, largest, measured, bound(expected, measured, exact))


@contextmanager
def _session(source: io.Source) -> Iterator[Callable[[Mapping[str, Array]], list[Any]]]:
    """A function that runs the model on the CPU provider, the runtime's own optimizations off."""
    import onnxruntime as ort  # takes a while, and only this needs it

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        io.write(source, path)
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises types of its own, C++ ones
            raise ExportError(
                f"ONNX Runtime cannot load its model ({said(error)}); "
                "without the check (--no-check) it is written all the same"
            ) from error
        yield lambda feeds: list(session.run(None, dict(feeds)))
