"""ONNX Runtime against PyTorch on the same inputs, with PyTorch in float64 as the yardstick.

Both run in the model's own type and round in other places. How much rounding a network amplifies is
measured: the distance between PyTorch in the model's type and PyTorch in float64. ONNX Runtime may
be a few times as far from PyTorch; an operator that means something else is much farther.
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
from onnxfuse.exporter.expected import Expected, as_array
from onnxfuse.exporter.inputs import show_shape
from onnxfuse.exporter.pytorch import said

if TYPE_CHECKING:
    from onnxfuse.graph import Array

RATIO = 10
"""Allowed over the yardstick, which is one sample of two errors of its size."""

FLOOR = 64
"""Roundoffs that are allowed where PyTorch happened to be exact: approximations of exp, erf and
tanh in the two differ by some ten."""

WITHOUT_YARDSTICK = 4096
"""Roundoffs that are allowed where the module does not run in float64; the deepest networks of
models/ are below 100."""

FLIPPED = 0.01
"""Share of an integer or boolean output that rounding may change, as in an argmax."""


@dataclass(frozen=True)
class Parity:
    """One output of a model, ONNX Runtime against PyTorch.

    Attributes:
        output: Its name.
        inputs: Shapes of the inputs, and "negated" where they were the examples with other signs.
        error: Relative L2 distance between ONNX Runtime and PyTorch; for integers and booleans the
            share of elements that differ. NaN and infinities count as equal to themselves.
        largest: Largest absolute difference.
        rounding: The same distance between PyTorch in the model's type and in float64; None where
            the module does not run in float64.
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


def compare(
    source: io.Source, names: Sequence[str], cases: Sequence[Expected]
) -> tuple[list[Parity], list[str]]:
    """Runs a model for each case, and measures how far it is from PyTorch.

    Args:
        source: The model; outputs in the order of the cases'.
        names: Names of its inputs.
        cases: What PyTorch gives, first at the examples.

    Returns:
        How far it is, and in words the other sizes at which ONNX Runtime stops with an error.

    Raises:
        ParityError: ONNX Runtime cannot load the model or run it at the examples, or an output at
            any size is off by more than rounding.
    """
    found: list[Parity] = []
    stopped: list[str] = []
    with _session(source) as run:
        for case in cases:
            try:
                outputs = run({n: as_array(t) for n, t in zip(names, case.tensors, strict=True)})
            except Exception as error:  # the runtime raises types of its own, C++ ones
                failed = f"ONNX Runtime cannot run the model on {case.label}"
                if case.shapes == cases[0].shapes:
                    raise ParityError(f"{failed}: {said(error)}") from error
                stopped.append(f"{failed}: the exporter has written the example's sizes into it")
                continue
            for (name, expected), value in zip(case.outputs.items(), outputs, strict=True):
                exact = None if case.exact is None else case.exact[name]
                parity = measure(name, case.label, np.asarray(value), expected, exact)
                if not parity.agrees:
                    raise ParityError(f"on {case.label} {_difference(parity, value, expected)}")
                found.append(parity)
    return found, stopped


def _difference(parity: Parity, actual: Array, expected: Array) -> str:
    if actual.shape != expected.shape:
        return (
            f"output {parity.output!r} is {show_shape(actual.shape)} in ONNX Runtime and "
            f"{show_shape(expected.shape)} in PyTorch"
        )
    return (
        f"output {parity.output!r} of ONNX Runtime differs from PyTorch's by {parity.error:.1e}, "
        f"where rounding explains {parity.bound:.1e}"
    )


def measure(
    output: str,
    inputs: str,
    actual: Array,
    expected: Array,
    exact: Array | None,
) -> Parity:
    """Compares one output; see `Parity`."""
    error, largest = _distance(actual, expected)
    if expected.dtype.kind == "f":
        roundoff = float(np.finfo(str(expected.dtype)).eps) / 2
        floor, unknown = FLOOR * roundoff, WITHOUT_YARDSTICK * roundoff
    else:
        floor = unknown = FLIPPED
    rounding = None if exact is None else _distance(expected, exact)[0]
    bound = unknown if rounding is None else max(floor, RATIO * rounding)
    return Parity(output, inputs, error, largest, rounding, bound)


def _distance(actual: Array, expected: Array) -> tuple[float, float]:
    """Relative L2, or the share of unequal elements, and the largest absolute difference."""
    if actual.shape != expected.shape:
        return np.inf, np.inf
    if not actual.size:
        return 0.0, 0.0
    if expected.dtype.kind != "f":
        apart = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        return float(np.mean(apart != 0)), float(apart.max())
    wide, truth = actual.astype(np.float64), expected.astype(np.float64)
    same = (wide == truth) | (np.isnan(wide) & np.isnan(truth))
    if not np.isfinite(wide[~same]).all() or not np.isfinite(truth[~same]).all():
        return np.inf, np.inf
    with np.errstate(all="ignore"):
        apart = np.where(same, 0.0, wide - truth)
    norm = np.linalg.norm(np.where(np.isfinite(truth), truth, 0.0))
    distance = float(np.linalg.norm(apart))
    return (distance / float(norm) if norm else distance), float(np.abs(apart).max())


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
            raise ParityError(
                f"ONNX Runtime cannot load the exported model: {said(error)}"
            ) from error
        yield lambda feeds: list(session.run(None, dict(feeds)))
