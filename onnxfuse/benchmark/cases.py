"""What the models are given: arrays for the inputs of the first one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds, Input, Loaded, RunError, Session, make_feeds, read_inputs
from onnxfuse.runtime.sizes import check_sizes, size_choices, symbols

USUAL = 224
"""The extent that is tried first for symbolic dimensions behind the batch."""


@dataclass(frozen=True)
class Case:
    """One set of inputs.

    Attributes:
        feeds: By name of the first model's inputs.
        batch: Extent of the first axis of the first input; 1 where it has none.
        shapes: Shapes of the inputs, by name; of a sequence its length.
    """

    feeds: Feeds
    batch: int
    shapes: Mapping[str, tuple[int, ...]]


def recorded_cases(path: Path, first: Loaded) -> tuple[list[Case], list[str]]:
    """Inputs from files, one set of each shape; and what there is to note.

    Raises:
        ModelError: As `read_inputs`.
    """
    found = [case_of(recorded.feeds) for recorded in read_inputs(path, first.inputs)]
    kept = list({tuple(case.shapes.items()): case for case in reversed(found)}.values())[::-1]
    if len(kept) == len(found):
        return kept, []
    return kept, [f"{path}: of {len(found)} sets of inputs, one of each shape is used"]


def made_cases(
    first: Loaded, session: Session, sizes: Mapping[str, int], batches: Sequence[int]
) -> list[Case]:
    """Random inputs, for each batch size, at sizes at which the first model runs.

    Args:
        first: The first model.
        session: Where to try it.
        sizes: Extents of symbolic dimensions that are settled. The others are 224, or else what
            `size_choices` gives; the batch is 1, or else what it gives.
        batches: Batch sizes; empty for one where the batch is symbolic, or what is fixed.

    Raises:
        ModelError: No input has such a dimension, or such a batch.
        RunError: The model runs at none of the sizes.
    """
    check_sizes(first.inputs, sizes)
    if not batches:
        one = {name: 1 for name, axis in symbols(first.inputs).items() if axis == 0}
        return [_runnable(first, session, [one | dict(sizes), sizes])]
    given = [{**_batch(first, batch, sizes), **sizes} for batch in dict.fromkeys(batches)]
    return [_runnable(first, session, [extents]) for extents in given]


def _batch(first: Loaded, batch: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Extents of the dimensions that stand first in an input."""
    if batch < 1:
        raise ModelError(f"batch size {batch} is not positive")
    leading = [given.shape[0] for given in first.inputs if given.shape]
    if not leading:
        raise ModelError(f"{first.name}: no input has a batch axis")
    names = [extent for extent in leading if isinstance(extent, str)]
    if not names and leading[0] != batch:
        raise ModelError(f"{first.name}: the batch is fixed at {leading[0]}: it cannot be {batch}")
    for name in names:
        if sizes.get(name, batch) != batch:
            raise ModelError(f"batch size {batch} and size {name}={sizes[name]} contradict")
    return dict.fromkeys(names, batch)


def _runnable(first: Loaded, session: Session, settled: Sequence[Mapping[str, int]]) -> Case:
    """The first choice at which the model runs, of those that leave each in turn as settled."""
    failed: dict[str, RunError] = {}
    for choice in itertools.chain(
        *(size_choices(first.inputs, extents, first=(USUAL,)) for extents in settled)
    ):
        label = ",".join(f"{name}={extent}" for name, extent in choice.items())
        for feeds in _values(first.inputs, choice) if label not in failed else ():
            try:
                session.run(feeds)
            except RunError as error:
                failed.setdefault(label, error)
            else:
                return case_of(feeds)
    why = next(iter(failed.values()))
    if len(failed) == 1:
        raise why
    raise RunError(f"{why} (tried {'; '.join(failed)}: give sizes at which it runs)")


def _values(inputs: Sequence[Input], sizes: Mapping[str, int]) -> Iterator[Feeds]:
    """Random values; then with integers that are 0 or 1, which more indices and shapes allow."""
    feeds = make_feeds(inputs, sizes)
    yield feeds
    integers = {name for name, value in feeds.items() if value.dtype.kind in "iu"}
    for kind in ("tiny", "constant") if integers else ():
        other = make_feeds(inputs, sizes, kind)
        yield {name: other[name] if name in integers else feeds[name] for name in feeds}


def case_of(feeds: Feeds) -> Case:
    """What a model is given, with its shapes."""
    shapes = {name: _shape(value) for name, value in feeds.items()}
    return Case(feeds, next(itertools.chain(*(s[:1] for s in shapes.values()), [1])), shapes)


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, np.ndarray):
        return tuple(int(extent) for extent in value.shape)
    return (len(value),) if hasattr(value, "__len__") else ()
