"""Inputs of a model, run by run, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds, Input

Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Samples:
    """Inputs of a model for one run after the other; iterating again reads them again.

    Attributes:
        name: Where they come from.
        count: How many runs there are.
        feeds: Arrays by name of the input, for the run of a number below `count`.
        labels: The class of each sample, in the order of the runs, (N,) int64; None where nobody
            says. A run has as many samples as the model's batch is fixed at, and else one.
    """

    name: str
    count: int
    feeds: Callable[[int], Feeds] = field(repr=False)
    labels: Labels | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Feeds:
        """The inputs of a run.

        Raises:
            IndexError: There is no such run.
            ModelError: They cannot be read, or hold what no model can be calibrated with.
        """
        if not 0 <= number < self.count:
            raise IndexError(number)
        feeds = self.feeds(number)
        for name, value in feeds.items():
            is_number = isinstance(value, np.ndarray) and value.dtype.kind == "f"
            if is_number and not np.isfinite(value).all():
                raise ModelError(f"{self.name}: run {number}: input {name!r} is not finite")
        return feeds

    def __iter__(self) -> Iterator[Feeds]:
        return (self[number] for number in range(self.count))


@dataclass(frozen=True)
class Layout:
    """How samples become runs of a model.

    Attributes:
        slices: How much of its leading axis each input takes of one sample, by name.
        group: How many samples go into a run.
    """

    slices: dict[str, int]
    group: int


def layout(inputs: Sequence[Input]) -> Layout:
    """One sample per run where the batch is symbolic; as many as it is fixed at, otherwise.

    Inputs whose leading axes are fixed at different extents have no batch in common: a sample is
    then all of each.
    """
    leading = {given.name: _leading(given) for given in inputs}
    extents = {
        extent for given, extent in zip(inputs, leading.values(), strict=True) if given.shape
    }
    if len(extents) == 1:
        return Layout(dict.fromkeys(leading, 1), max(extents.pop(), 1))
    return Layout(leading, 1)


def _leading(given: Input) -> int:
    first = given.shape[0] if given.shape else 1
    return first if isinstance(first, int) else 1


def grouped(
    name: str, count: int, sample: Callable[[int], Feeds], labels: Labels | None, group: int
) -> Samples:
    """Samples of which each run takes several; what does not fill a run is left out.

    Args:
        name: Where they come from.
        count: How many samples there are.
        sample: Arrays of one sample, by name of the input, with the leading axis.
        labels: Their classes, or None.
        group: How many go into a run.

    Raises:
        ModelError: They do not fill a single run.
    """
    runs = count // group
    if not runs:
        has = f"{count} sample{'s' * (count != 1)}"
        raise ModelError(f"{name}: {has}, and the model's batch is fixed at {group}")
    kept = None if labels is None else labels[: runs * group]
    if group == 1:
        return Samples(name, runs, sample, kept)

    def run(number: int) -> Feeds:
        parts = [sample(index) for index in range(number * group, (number + 1) * group)]
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}

    return Samples(name, runs, run, kept)


def _joined(values: Sequence[Any]) -> Any:
    return np.concatenate(values) if values[0].ndim else values[0]
