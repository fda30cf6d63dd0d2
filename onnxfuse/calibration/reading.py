"""Samples, from wherever they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxfuse.calibration.archives import from_npy, from_npz
from onnxfuse.calibration.arrays import samples_of
from onnxfuse.calibration.folders import ARRAY, from_folder, from_image
from onnxfuse.calibration.images import SUFFIXES, Pixels
from onnxfuse.calibration.iterables import from_factory, from_iterable
from onnxfuse.calibration.samples import Samples
from onnxfuse.errors import ModelError
from onnxfuse.exporter.target import named_object, searching
from onnxfuse.runtime import Input
from onnxfuse.runtime.sizes import check_sizes

_FORMS = (
    "a folder of images, of .npy files, of folders of them by class, or of ONNX test data; an "
    ".npz, an .npy or an image; package.module:factory or path/file.py:factory"
)


def read_samples(
    data: Any,
    inputs: Sequence[Input],
    *,
    sizes: Mapping[str, int] | None = None,
    pixels: Pixels | None = None,
) -> Samples:
    """Samples that a model can be run on, one run each.

    Where the model's batch is fixed, each run takes as many, and what does not fill a run is left
    out; elsewhere each takes one. Files are read when a run is asked for; of an .npz the arrays are
    held in memory.

    Args:
        data: A path: a folder of images or .npy files, or of folders of them, whose order gives the
            classes; a folder of ONNX test data; an .npz with arrays by name of the input, and
            perhaps `labels`; an .npy for the only input. Or package.module:factory or
            path/file.py:factory. Or anything in Python that gives dicts, arrays, or either with
            labels, one after the other; a dict of arrays, as in an .npz.
        inputs: What the model has to be given.
        sizes: Extents of symbolic dimensions, by name, for images.
        pixels: What becomes of the pixels of images.

    Raises:
        ModelError: They cannot be read, do not fit the inputs, or there are none.
    """
    if not inputs:
        raise ModelError("the model takes no inputs: there is nothing to calibrate")
    settled = dict(sizes or {})
    check_sizes(inputs, settled)
    if isinstance(data, Samples):
        return data
    if isinstance(data, Mapping):
        return samples_of("the samples", data, inputs)
    if isinstance(data, (str, os.PathLike)):
        return _from_path(os.fspath(data), inputs, settled, pixels or Pixels())
    if callable(data) and not isinstance(data, Iterable):
        return from_factory("the samples", data, inputs)
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise ModelError(f"samples are {_FORMS}, or an iterable, not a {type(data).__name__}")
    return from_iterable("the samples", data, inputs)


def _from_path(
    text: str, inputs: Sequence[Input], sizes: Mapping[str, int], pixels: Pixels
) -> Samples:
    path = Path(text)
    if path.is_dir():
        return from_folder(path, inputs, sizes, pixels)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return from_npz(path, inputs)
    if suffix == ARRAY:
        return from_npy(path, inputs)
    if suffix in SUFFIXES:
        return from_image(path, inputs, sizes, pixels)
    if ":" in text and not path.exists():
        with searching(text):
            return from_factory(text, named_object(text), inputs)
    what = "it is none of these" if path.exists() else "there is no such file or folder"
    raise ModelError(f"{text}: {what}: {_FORMS}")
