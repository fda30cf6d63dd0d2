"""Arrays that hold many samples, and what an input can take of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfuse.calibration.samples import Labels, Samples, grouped, layout
from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds, Input

Values = np.ndarray[Any, Any]
LABELS = ("labels", "label", "y")
"""What an array of classes is called."""


@dataclass(frozen=True)
class Column:
    """The samples of one input.

    Attributes:
        count: How many.
        at: The array of one sample, with its leading axis.
    """

    count: int
    at: Callable[[int], Values]


def column(array: Values, given: Input, length: int, where: str) -> Column:
    """An array cut into samples.

    Args:
        array: Of the input's shape, but for its leading axis; or of its shape with one axis less,
            a single sample; or with one more in front, one sample each.
        given: The input.
        length: How much of the input's leading axis a sample takes.
        where: What messages begin with.

    Raises:
        ModelError: It has another shape, or elements that cannot become the input's.
    """
    if not given.elem_type:
        raise ModelError(f"{where}: input {given.name!r} is no tensor: give ONNX test data")
    convert, whole = _converter(array, given, where), array
    rank = array.ndim if given.shape is None else len(given.shape)
    if not rank:
        if array.ndim > 1:
            raise _misfit(array, given, where)
        return Column(array.size, lambda index: convert(array.reshape(-1)[index]))
    if array.ndim == rank - 1:
        array = array[np.newaxis]
    elif array.ndim == rank + 1:
        array = array.reshape(-1, *array.shape[2:])
    if array.ndim != rank or not all(
        isinstance(wanted, str) or wanted == extent
        for wanted, extent in zip((given.shape or array.shape)[1:], array.shape[1:], strict=True)
    ):
        raise _misfit(whole, given, where)
    return Column(
        len(array) // length, lambda index: convert(array[index * length : (index + 1) * length])
    )


def fits(array: Values, given: Input) -> bool:
    """Whether an array holds samples of an input."""
    try:
        column(array, given, 1, "")
    except ModelError:
        return False
    return True


def samples_of(
    name: str, arrays: Mapping[str, Values], inputs: Sequence[Input], labels: Labels | None = None
) -> Samples:
    """Samples from an array for each input; an array of one sample serves all the others.

    Args:
        name: Where they come from.
        arrays: By name of the input.
        inputs: What the model has to be given.
        labels: (N,), or None.

    Raises:
        ModelError: An array is missing or does not fit, or there are different numbers of samples.
    """
    count, sample = samples_in(name, arrays, inputs)
    if labels is not None and len(labels) != count:
        raise ModelError(f"{name}: {len(labels)} labels for {count} samples")
    return grouped(name, count, sample, labels, layout(inputs).group)


def samples_in(
    name: str, arrays: Mapping[str, Values], inputs: Sequence[Input]
) -> tuple[int, Callable[[int], Feeds]]:
    """How many samples there are in an array for each input, and each of them; raises as above."""
    slices = layout(inputs).slices
    columns: dict[str, Column] = {}
    for given in inputs:
        if given.name not in arrays:
            raise ModelError(f"{name}: nothing for input {given.name!r}")
        columns[given.name] = column(arrays[given.name], given, slices[given.name], name)
    counts = {key: found.count for key, found in columns.items()}
    count = min(counts.values(), default=0) and max(counts.values())
    if not count:
        raise ModelError(f"{name}: there are no samples in it")
    for key, has in counts.items():
        if has not in (1, count):
            raise ModelError(f"{name}: {has} samples for input {key!r}, {count} for another")

    def sample(index: int) -> Feeds:
        return {key: c.at(index if c.count > 1 else 0) for key, c in columns.items()}

    return count, sample


def as_labels(values: Values, where: str) -> Labels:
    """Classes as int64.

    Raises:
        ModelError: They are no row of integers from 0.
    """
    if values.ndim != 1 or values.dtype.kind not in "iu" or (values.size and values.min() < 0):
        raise ModelError(f"{where}: labels are integers from 0 in one row, one for each sample")
    return values.astype(np.int64)


def _converter(array: Values, given: Input, where: str) -> Callable[[Values], Values]:
    """Makes parts of an array ones of the input's type, where that loses no more than digits."""
    wanted, has = given.dtype, array.dtype
    if wanted == has:
        return np.ascontiguousarray if given.shape else np.asarray
    if wanted.kind == has.kind == "f" or (wanted.kind in "iu" and has.kind in "iu"):

        def convert(part: Values) -> Values:
            with np.errstate(over="ignore"):  # what is not finite is refused later
                made = np.asarray(part).astype(wanted)
            if wanted.kind != "f" and not np.array_equal(made, part):
                raise ModelError(f"{where}: input {given.name!r} cannot hold what is in it")
            return made

        return convert
    raise ModelError(f"{where}: input {given.name!r} is {wanted.name}, the array {has.name}")


def _misfit(array: Values, given: Input, where: str) -> ModelError:
    wanted = "x".join(map(str, given.shape or ())) or "a scalar"
    has = "x".join(map(str, array.shape)) or "a scalar"
    return ModelError(f"{where}: input {given.name!r} is {wanted}, the array {has}")
