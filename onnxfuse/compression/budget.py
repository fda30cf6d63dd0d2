"""Bits for each weight, so that a model's outputs stay within an error and the file is small.

1. Each weight alone is put into each number of bits, and the outputs' error measured.
2. Errors of several weights are taken as adding in squares. From the fewest bits on, the weight is
   raised whose next step takes away most squared error for each byte, until all are float.
3. On that path, the first state within the budget is looked for by bisection, each one measured
   with all its weights together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
from numpy.typing import NDArray

from onnxfuse import io
from onnxfuse.compression.measuring import Reference, run_all
from onnxfuse.compression.weights import Weight
from onnxfuse.runtime import Feeds, load_model, open_session
from onnxfuse.runtime.providers import require_provider

CHOICES = (2, 4, 8)

State: TypeAlias = tuple[int, ...]
"""For each weight, which of its options is taken."""


@dataclass(frozen=True)
class Option:
    """One way to store a weight.

    Attributes:
        bits: Bits of the integers; None for float.
        size: Bytes in the file.
        weight: What the runtime computes from them; None for float.
    """

    bits: int | None
    size: int
    weight: Callable[[], NDArray[Any]] | None


def chosen_path(
    source: io.Source,
    reference: Reference,
    weights: Sequence[Weight],
    options: Sequence[Sequence[Option]],
    budget: float,
    tell: Callable[[str], None],
) -> list[State]:
    """The states from the first one within the budget on, the last one all float.

    Args:
        source: The float model.
        reference: Its outputs.
        weights: Weights of its main graph.
        options: Of each weight, by growing size; float is the last.
        budget: Relative L2 error that outputs may have.
        tell: Called with a word on each step.

    Raises:
        RunError: ONNX Runtime cannot run the model with weights as inputs.
    """
    with load_model(_with_inputs(source, weights), source.name) as loaded:
        session = open_session(loaded, require_provider("cpu"))
        floats = {weight.name: source.load(weight.tensor) for weight in weights}

        def error(state: Mapping[int, Option]) -> float:
            given = {
                weights[index].name: option.weight()
                for index, option in state.items()
                if option.weight is not None
            }
            feeds: list[Feeds] = [{**one, **floats, **given} for one in reference.feeds]
            return reference.error(run_all(session, feeds)).relative_l2

        squares: list[list[float]] = []
        for index, ways in enumerate(options):
            tell(f"measuring weight {index + 1} of {len(weights)}")
            squares.append([0.0 if w.weight is None else error({index: w}) ** 2 for w in ways])
        path = ascent([[w.size for w in ways] for ways in options], squares)
        tell("choosing bits")
        low, high = 0, len(path) - 1
        while low < high:
            middle = (low + high) // 2
            state = {i: options[i][taken] for i, taken in enumerate(path[middle])}
            low, high = (low, middle) if error(state) <= budget else (middle + 1, high)
    return path[low:]


def ascent(sizes: Sequence[Sequence[int]], squares: Sequence[Sequence[float]]) -> list[State]:
    """States from the smallest to the largest options, most error for a byte first.

    Args:
        sizes: Bytes of each weight's options, growing.
        squares: Squared error of each, alone.
    """
    state = [0] * len(sizes)
    path = [tuple(state)]
    while True:
        best: tuple[float, int, int] | None = None
        for index, taken in enumerate(state):
            for higher in range(taken + 1, len(sizes[index])):
                gained = squares[index][taken] - squares[index][higher]
                rate = gained / max(1, sizes[index][higher] - sizes[index][taken])
                if best is None or rate > best[0]:
                    best = rate, index, higher
        if best is None:
            return path
        state[best[1]] = best[2]
        path.append(tuple(state))


def _with_inputs(source: io.Source, weights: Sequence[Weight]) -> io.Source:
    """A copy of the model whose weights are inputs."""
    names = {weight.name for weight in weights}
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    given = {value.name for value in model.graph.input}
    for index in reversed(range(len(model.graph.initializer))):
        tensor = model.graph.initializer[index]
        if tensor.name in names:
            if tensor.name not in given:
                model.graph.input.append(
                    onnx.helper.make_tensor_value_info(
                        tensor.name, tensor.data_type, list(tensor.dims)
                    )
                )
            del model.graph.initializer[index]
    return io.Source(model, source.path, source.external, source.files)
