"""Inputs from files: .npz, or folders of ONNX test data (input_0.pb, output_0.pb, ...)."""

from __future__ import annotations

import lzma
import re
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import message as pb
from onnx import numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.hollow import is_external
from onnxfuse.io.files import content_of, one_line
from onnxfuse.runtime.feeds import Feeds
from onnxfuse.runtime.model import Input

DAMAGE = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
)
"""What reading a damaged archive raises: its parts are packed, and begin with text to parse."""


@dataclass(frozen=True)
class Recorded:
    """Inputs that were read from files.

    Attributes:
        label: Where they come from.
        feeds: By name of the input.
    """

    label: str
    feeds: Feeds


def read_inputs(path: Path, inputs: Sequence[Input]) -> list[Recorded]:
    """Inputs of a model: one set from an .npz, one from each folder that holds input_0.pb.

    Args:
        path: An .npz with an array for each input, by name, or in order if no name fits; or a
            folder with input_0.pb and so on, or a folder of such folders, as ONNX's tests have it.
        inputs: What the model has to be given.

    Raises:
        ModelError: They cannot be read, or do not fit the inputs.
    """
    if path.is_dir():
        folders = recorded_folders(path)
        if not folders:
            raise ModelError(f"{path}: no input_0.pb in this folder or below it")
        return [Recorded(str(folder), read_recorded(folder, inputs)) for folder in folders]
    return [Recorded(str(path), _checked(str(path), _from_npz(path, inputs), inputs))]


def recorded_folders(path: Path) -> list[Path]:
    """The folders with input_0.pb in a folder, itself among them, in order."""
    return sorted({file.parent for file in path.glob("**/input_0.pb")})


def read_recorded(folder: Path, inputs: Sequence[Input]) -> Feeds:
    """Inputs of a model from a folder that holds input_0.pb and so on.

    Raises:
        ModelError: They cannot be read, or do not fit the inputs.
    """
    return _checked(str(folder), _from_folder(folder, inputs), inputs)


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an .npz, by name.

    Raises:
        ModelError: It cannot be read, or is none.
    """
    try:
        with open(path, "rb") as handle:
            archive = np.load(handle, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ModelError(f"{path}: not an .npz, but a single array: use numpy.savez")
            arrays = {name: archive[name] for name in archive.files}
            if not all(isinstance(value, np.ndarray) for value in arrays.values()):
                raise ValueError("something in it is no array")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {one_line(error)}") from error
    except DAMAGE as error:
        raise ModelError(
            f"{path}: not an .npz of plain arrays, as numpy.savez writes it"
        ) from error
    return arrays


def _from_npz(path: Path, inputs: Sequence[Input]) -> Feeds:
    arrays = read_arrays(path)
    names = [given.name for given in inputs]
    if not set(names) & set(arrays) and len(arrays) == len(names):
        return dict(zip(names, arrays.values(), strict=True))
    return {name: arrays[name] for name in names if name in arrays}


def _from_folder(folder: Path, inputs: Sequence[Input]) -> Feeds:
    files = {
        int(m[1]): f for f in folder.iterdir() if (m := re.fullmatch(r"input_(\d+)\.pb", f.name))
    }
    if len(files) > len(inputs):
        raise ModelError(f"{folder}: {len(files)} inputs, the model takes {len(inputs)}")
    return {inputs[i].name: _read_pb(f, inputs[i]) for i, f in files.items() if i < len(inputs)}


def _read_pb(path: Path, given: Input) -> Any:
    try:
        data = content_of(path)
        if given.elem_type:
            tensor = onnx.TensorProto.FromString(data)
            if is_external(tensor):
                raise ValueError("its data is in another file")
            return numpy_helper.to_array(tensor)
        sequence = onnx.SequenceProto.FromString(data)
        if any(map(is_external, sequence.tensor_values)):
            raise ValueError("its data is in another file")
        return numpy_helper.to_list(sequence)
    except (OSError, pb.DecodeError, ValueError, TypeError, KeyError) as error:
        what = "tensor" if given.elem_type else "sequence"
        raise ModelError(f"{path}: not a {what} of ONNX test data: {one_line(error)}") from error


def _checked(label: str, feeds: Feeds, inputs: Sequence[Input]) -> Feeds:
    """The feeds, if they fit the inputs; arrays of strings as the runtime wants them."""
    for given in inputs:
        if given.name not in feeds:
            raise ModelError(f"{label}: nothing for input {given.name!r}")
        value = feeds[given.name]
        if not given.elem_type:
            continue
        if value.dtype.kind in "US":
            value = feeds[given.name] = value.astype(object)
        if value.dtype != given.dtype:
            raise ModelError(
                f"{label}: input {given.name!r} is {given.dtype.name}, the file has "
                f"{value.dtype.name}"
            )
        if not _fits(value.shape, given.shape):
            wanted = "x".join(map(str, given.shape or ())) or "a scalar"
            has = "x".join(map(str, value.shape)) or "a scalar"
            raise ModelError(f"{label}: input {given.name!r} is {wanted}, the file has {has}")
    return feeds


def _fits(shape: tuple[int, ...], declared: tuple[int | str, ...] | None) -> bool:
    if declared is None:
        return True
    return len(shape) == len(declared) and all(
        isinstance(wanted, str) or wanted == extent
        for extent, wanted in zip(shape, declared, strict=True)
    )
