"""A model as it was read, and the data that it keeps outside its file."""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.graph import Array
from onnxfuse.hollow import is_external, payload_bytes, tensors
from onnxfuse.io.files import one_line


@dataclass(frozen=True)
class Source:
    """A model as it was read.

    Attributes:
        model: The model; ours to change. Big external tensors are still references.
        path: The file it was read from, or None.
        external: True when the data of some tensors came from other files.
        files: Every file that belongs to the model.
    """

    model: onnx.ModelProto
    path: Path | None = None
    external: bool = False
    files: frozenset[Path] = field(default=frozenset(), repr=False)

    @property
    def name(self) -> str:
        """What messages call the model."""
        return "the model" if self.path is None else str(self.path)

    def load(self, tensor: TensorProto) -> Array:
        """The tensor's value. External data is mapped into memory, not copied, and read-only.

        Raises:
            ModelError: The data does not fit type and shape, or is outside the model's folder.
        """
        try:
            if not is_external(tensor):
                return numpy_helper.to_array(tensor)
            data = self.mapped(tensor)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            if data.size == dtype.itemsize * math.prod(tensor.dims):
                return np.require(data.view(dtype).reshape(tuple(tensor.dims)), requirements="A")
            packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            packed.raw_data = data.tobytes()
            return numpy_helper.to_array(packed)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{self.name}: tensor '{tensor.name}': {one_line(error)}") from error

    def embed(self, below: float = math.inf) -> None:
        """Brings external tensors of less than `below` bytes into the model itself.

        Sparse ones come in whatever their size: few programs look for their data elsewhere.
        """
        sparse: list[TensorProto] = []
        small = [t for t in tensors(self.model, sparse) if payload_bytes(t) < below]
        for tensor in filter(is_external, (*small, *sparse)):
            tensor.raw_data = self.mapped(tensor).tobytes()
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")

    def mapped(self, tensor: TensorProto) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes of an external tensor, mapped into memory."""
        path, offset, length = self.locate(tensor)
        if length == 0:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r", offset=offset, shape=(length,))

    def locate(self, tensor: TensorProto) -> tuple[Path, int, int]:
        """File, offset and length of an external tensor's data, checked.

        Raises:
            ModelError: The data is not there, does not fit, or is outside the model's folder.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if len(entries) < len(tensor.external_data):
            raise ModelError(f"{self.name}: tensor '{tensor.name}' says twice where its data is")
        if isinstance(location, bytes):
            raise ModelError(f"{self.name}: the name {location!r} of a data file is not UTF-8")
        what = f"{self.name}: tensor '{tensor.name}' keeps its data in '{location}'"
        if self.path is None:
            raise ModelError(f"{what}, beside a model file: pass that file's path")
        if not location or os.path.isabs(location) or "\\" in location or "\0" in location:
            raise ModelError(f"{what}, which is not a relative path")
        real = Path(os.path.realpath(self.path.parent / location))
        # A model that is itself a link, as in download caches, has its data beside its target.
        folders = os.path.realpath(self.path.parent), os.path.dirname(os.path.realpath(self.path))
        if not any(real.is_relative_to(folder) for folder in folders):
            raise ModelError(f"{what}, outside the model's folder")
        needed = payload_bytes(tensor)
        try:
            status = os.stat(real)
            offset = _whole(entries.get("offset") or "0")
            length = _whole(entries.get("length") or str(needed))
        except (OSError, ValueError) as error:
            raise ModelError(f"{what}, which cannot be read: {one_line(error)}") from error
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ModelError(f"{what}, which is a hard link or not a plain file: make it a copy")
        if offset < 0 or length != needed or offset + length > status.st_size:
            raise ModelError(
                f"{what}: its type and shape take {needed} bytes, the model says {length} from "
                f"{offset}, the file has {status.st_size}"
            )
        return real, offset, length


def _whole(text: str) -> int:
    """A number of bytes, as it is written in a model."""
    if not re.fullmatch(r"-?[0-9]{1,99}", text):
        raise ValueError(f"{text!r} is no number of bytes")
    return int(text)
