"""Samples from folders: of images or .npy files, of folders of them by class, of ONNX test data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxfuse.calibration.archives import only, read_npy
from onnxfuse.calibration.arrays import samples_in
from onnxfuse.calibration.images import SUFFIXES, Pixels, image_reader
from onnxfuse.calibration.samples import Samples, grouped, layout
from onnxfuse.errors import ModelError
from onnxfuse.io.files import one_line
from onnxfuse.runtime import Feeds, Input, read_recorded, recorded_folders

ARRAY = ".npy"
HOLDING = SUFFIXES | {ARRAY, ".pb"}
"""How the names of files in folders end that hold samples."""


def from_folder(
    folder: Path, inputs: Sequence[Input], sizes: Mapping[str, int], pixels: Pixels
) -> Samples:
    """Samples from a folder, read one at a time, in the order of their names.

    It holds images or .npy files, one sample each; or folders with such, whose names in order give
    the classes 0, 1 and so on; or ONNX test data (input_0.pb), here or further down. Other files
    are passed over.

    Raises:
        ModelError: It holds none of these, or they do not fit the inputs.
    """
    if recorded := recorded_folders(folder):
        return Samples(
            str(folder), len(recorded), lambda number: read_recorded(recorded[number], inputs)
        )
    files, labels = _listed(folder), None
    found = [(label, file) for label, below in _classes(folder) for file in _listed(below)]
    if files and found:
        raise ModelError(
            f"{folder}: samples in it, such as {files[0].name}, and in folders in it, such as "
            f"{found[0][1].parent.name}: which are the samples?"
        )
    if not files:
        files = [file for _, file in found]
        labels = np.array([label for label, _ in found], np.int64)
    kinds = sorted({file.suffix.lower() for file in files})
    if not files:
        raise ModelError(
            f"{folder}: no images, .npy files or ONNX test data in it, or in the folders in it"
        )
    if ARRAY in kinds and len(kinds) > 1:
        raise ModelError(f"{folder}: both {ARRAY} and {kinds[-1]} files: which are the samples?")
    read = _reader(kinds[0] == ARRAY, inputs, sizes, pixels, str(folder))
    return grouped(
        str(folder), len(files), lambda index: read(files[index]), labels, layout(inputs).group
    )


def from_image(
    path: Path, inputs: Sequence[Input], sizes: Mapping[str, int], pixels: Pixels
) -> Samples:
    """A single image; raises ModelError as above."""
    read = _reader(False, inputs, sizes, pixels, str(path))
    return grouped(str(path), 1, lambda _: read(path), None, layout(inputs).group)


def _reader(
    is_array: bool,
    inputs: Sequence[Input],
    sizes: Mapping[str, int],
    pixels: Pixels,
    where: str,
) -> Callable[[Path], Feeds]:
    """Reads the sample in one file."""
    given = only(inputs, where)
    if not is_array:
        return image_reader(given, sizes, pixels, where).read

    def read(path: Path) -> Feeds:
        count, sample = samples_in(str(path), {given.name: read_npy(path)}, inputs)
        if count != 1:
            raise ModelError(f"{path}: {count} samples: in a folder each file holds one")
        return sample(0)

    return read


def _listed(folder: Path) -> list[Path]:
    """The files in a folder that hold samples, in order."""
    return [
        path
        for path in _entries(folder)
        if path.suffix.lower() in SUFFIXES | {ARRAY} and path.is_file()
    ]


def _classes(folder: Path) -> list[tuple[int, Path]]:
    """The folders in a folder, numbered in order; hidden ones are none."""
    return list(enumerate(path for path in _entries(folder) if path.is_dir()))


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {one_line(error)}") from error
