"""Forms of one model on the same samples: accuracy, distance from the float model, latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from onnxfuse import io
from onnxfuse.benchmark.cases import case_of
from onnxfuse.benchmark.measuring import Effort, Opened, measure_case
from onnxfuse.benchmark.rounds import WARM_UP
from onnxfuse.benchmark.settings import Settings
from onnxfuse.calibration import Samples
from onnxfuse.errors import OnnxfuseError
from onnxfuse.quantization.library import Tell
from onnxfuse.quantization.report import Form, Quality
from onnxfuse.runtime import Loaded, Session, load_model

CPU = "CPUExecutionProvider"
ROUNDS: int | None = None
"""Of measuring latency; None for what fits into 10 s, at least 20 and at most 200."""
FLOAT, FLOAT_FOLDED = "float", "float, folded"
INT8, INT8_FOLDED, INT8_EQUALIZED = "int8", "int8, folded", "int8, folded, equalized"


@dataclass
class _Tally:
    """Sums over samples, of one form."""

    right: int = 0
    noise: float = 0.0
    same_shapes: bool = True


def compared(
    forms: Mapping[str, Any], samples: Samples, *, threads: int | None, tell: Tell
) -> tuple[list[Form], list[str]]:
    """Runs the forms of a model on the same samples, then times them in turn.

    Args:
        forms: By name: what `onnxfuse.optimize` takes, or a Source; or, as `Failure`, why there is
            no such form. The first is what the others are compared with.
        samples: What they are run on; latency is that of the first.
        threads: Threads within an operator; None for the runtime's choice.
        tell: Told what is done.

    Returns:
        The forms, in the order given, and notes.

    Raises:
        ModelError: The first form cannot be loaded, or a sample cannot be read.
        RunError: The first form does not run on a sample.
    """
    settings = Settings(CPU, threads=threads)
    made = {name: Form(name) for name in forms}
    with ExitStack() as stack:
        loaded: dict[str, Loaded] = {}
        sessions: dict[str, Session] = {}
        for name, model in forms.items():
            if isinstance(model, Failure):
                made[name] = replace(made[name], failure=model.reason)
                continue
            try:
                loaded[name] = stack.enter_context(load_model(model, name))
                sessions[name] = settings.open(loaded[name])
                sessions[name].run(samples[0])
            except OnnxfuseError as error:
                if name == next(iter(forms)):
                    raise
                sessions.pop(name, None)
                made[name] = replace(made[name], failure=str(error))
        for name, quality in _qualities(sessions, samples, tell).items():
            size = _file_bytes(loaded[name])
            made[name] = replace(made[name], quality=quality, file_bytes=size)
        timed = [FLOAT_FOLDED] if FLOAT_FOLDED in sessions else []
        timed += [name for name in sessions if name not in timed]
        opened = Opened([loaded[name] for name in timed], settings)
        effort = Effort(ROUNDS, WARM_UP, False, False)
        timings, notes = measure_case(opened, case_of(samples[0]), effort, tell)
        for timing in timings:
            latency, ratio = timing.latency, timing.ratio
            made[timing.model] = replace(made[timing.model], latency=latency, ratio=ratio)
    return list(made.values()), notes


@dataclass(frozen=True)
class Failure:
    """A form of a model that could not be made.

    Attributes:
        reason: Why.
    """

    reason: str


def _qualities(sessions: Mapping[str, Session], samples: Samples, tell: Tell) -> dict[str, Quality]:
    """The outputs of each session against those of the first."""
    first, *others = sessions
    tallies = {name: _Tally() for name in sessions}
    signal, seen, scores = 0.0, 0, None
    for number, feeds in enumerate(samples):
        tell("comparing", number, len(samples))
        expected = sessions[first].run(feeds)
        if number == 0:
            scores = None if samples.labels is None else _scores(expected, int(max(samples.labels)))
        signal += sum(float(np.square(y).sum()) for y in _floats(expected))
        rows = 0
        for name in sessions:
            outputs = expected if name == first else sessions[name].run(feeds)
            tally = tallies[name]
            if name in others:
                noise = _noise(_floats(expected), _floats(outputs))
                tally.same_shapes &= noise is not None
                tally.noise += noise or 0.0
            if scores is not None and samples.labels is not None:
                found = outputs[scores].reshape(len(outputs[scores]), -1).argmax(1)
                rows = len(found)
                tally.right += int((found == samples.labels[seen : seen + rows]).sum())
        seen += rows
    tell("comparing", len(samples), len(samples))
    return {
        name: Quality(
            tally.right / seen if seen else None,
            *((None, None) if name == first else _distance(signal, tally)),
        )
        for name, tally in tallies.items()
    }


def _scores(outputs: Sequence[Any], largest: int) -> int | None:
    """The first output that looks like scores of classes: (N, K) with K above every label."""
    for index, value in enumerate(outputs):
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim < 2:
            continue
        if value.shape[1] > largest and math.prod(value.shape[2:]) == 1:
            return index
    return None


def _floats(outputs: Sequence[Any]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    return [
        value.astype(np.float64)
        for value in outputs
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    ]


def _noise(
    expected: Sequence[np.ndarray[Any, Any]], found: Sequence[np.ndarray[Any, Any]]
) -> float | None:
    """The sum of squared differences; None where there are other shapes."""
    if [y.shape for y in expected] != [y.shape for y in found]:
        return None
    return sum(float(np.square(b - a).sum()) for a, b in zip(expected, found, strict=True))


def _distance(signal: float, tally: _Tally) -> tuple[float | None, float | None]:
    """SNR in dB, and relative L2 distance."""
    if not tally.same_shapes or not signal:
        return None, None
    ratio = tally.noise / signal
    return (-10 * math.log10(ratio) if ratio else math.inf), math.sqrt(ratio)


def _file_bytes(model: Loaded) -> int:
    """Size of a model's file, and of the data beside it."""
    files = model.source.files if model.source.path == model.path else ()
    if files:
        return sum(path.stat().st_size for path in files)
    beside = io.data_name(model.path)
    return sum(path.stat().st_size for path in (model.path, beside) if path.is_file())


def as_source(model: onnx.ModelProto, like: io.Source) -> io.Source:
    """A model to be written as another one was: with its weights beside it, or not."""
    return io.Source(model, external=like.external, files=like.files)
