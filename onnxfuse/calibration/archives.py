"""Samples from .npz and .npy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxfuse.calibration.arrays import LABELS, Values, as_labels, fits, samples_of
from onnxfuse.calibration.samples import Samples
from onnxfuse.errors import ModelError
from onnxfuse.io.files import one_line
from onnxfuse.runtime import Input
from onnxfuse.runtime.testdata import DAMAGE, read_arrays


def from_npz(path: Path, inputs: Sequence[Input]) -> Samples:
    """Samples from an .npz: an array for each input, and perhaps labels.

    Arrays go by name; where no name fits, a model's only input takes the only array that it can,
    and several inputs take as many arrays in order. A row of integers called `labels`, `label` or
    `y` that is no input's tells the classes.

    Raises:
        ModelError: It cannot be read, or does not fit the inputs.
    """
    arrays = read_arrays(path)
    names = {given.name for given in inputs}
    called = next((name for name in LABELS if name in arrays and name not in names), None)
    labels = None if called is None else as_labels(arrays.pop(called), str(path))
    return samples_of(str(path), _by_input(path, arrays, inputs), inputs, labels)


def from_npy(path: Path, inputs: Sequence[Input]) -> Samples:
    """Samples from an .npy, which is mapped into memory, for a model's only input.

    Raises:
        ModelError: It cannot be read, or does not fit the input.
    """
    return samples_of(str(path), {only(inputs, str(path)).name: read_npy(path)}, inputs)


def read_npy(path: Path) -> Values:
    """The array of an .npy, mapped into memory.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {one_line(error)}") from error
    except DAMAGE as error:
        raise ModelError(
            f"{path}: not an .npy of plain numbers, as numpy.save writes it"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ModelError(f"{path}: not an .npy but an .npz: name it so")
    return array


def only(inputs: Sequence[Input], where: str) -> Input:
    """A model's only input.

    Raises:
        ModelError: It has none, or several.
    """
    if len(inputs) != 1:
        names = ", ".join(given.name for given in inputs) or "none"
        raise ModelError(
            f"{where}: for a model with one input, and this one has {len(inputs)} ({names}): give "
            "an .npz with arrays by name"
        )
    return inputs[0]


def _by_input(
    path: Path, arrays: Mapping[str, Values], inputs: Sequence[Input]
) -> Mapping[str, Values]:
    names = [given.name for given in inputs]
    if set(names) & set(arrays):
        return arrays
    if len(inputs) == 1:
        fitting = [name for name, array in arrays.items() if fits(array, inputs[0])]
        if len(fitting) == 1:
            return {names[0]: arrays[fitting[0]]}
        which = f"{len(fitting)} arrays fit" if fitting else "no array fits"
        there = ", ".join(
            f"{name} {array.dtype.name} {'x'.join(map(str, array.shape))}"
            for name, array in arrays.items()
        )
        raise ModelError(f"{path}: {which} input {names[0]!r}; in it: {there or 'nothing'}")
    return dict(zip(names, arrays.values(), strict=True)) if len(arrays) == len(names) else arrays
