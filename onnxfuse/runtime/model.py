"""A model as ONNX Runtime and the evaluator are given it: a file, and its contents."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxfuse import io


@dataclass(frozen=True)
class Input:
    """One input of a model that has to be given.

    Attributes:
        name: Its name.
        elem_type: Its element type, as onnx.TensorProto numbers them; 0 if it is no tensor.
        shape: Extents: numbers, or names of symbolic dimensions ("image:2" for axis 2 of an input
            that has no name there); None where the rank is not declared.
    """

    name: str
    elem_type: int
    shape: tuple[int | str, ...] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type; object for strings."""
        if self.elem_type == TensorProto.STRING:
            return np.dtype(object)
        return onnx.helper.tensor_dtype_to_np_dtype(self.elem_type)


@dataclass(frozen=True)
class Loaded:
    """A model, checked, with a file that ONNX Runtime can read.

    Attributes:
        source: Its contents.
        path: The file.
        name: What messages call it.
        inputs: What has to be given; initializers that are inputs too are not among them.
        outputs: Names of its outputs.
    """

    source: io.Source = field(repr=False)
    path: Path
    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]


@contextmanager
def load_model(model: Any, name: str | None = None) -> Iterator[Loaded]:
    """Reads a model; one in memory is written to a temporary file for the runtime meanwhile.

    Args:
        model: What `onnxfuse.optimize` takes, or a Source.
        name: What messages call it; default: its path.

    Raises:
        ModelError: It cannot be used.
    """
    source = model if isinstance(model, io.Source) else io.read(model)
    shown = name or source.name
    if source.path is not None and not isinstance(model, io.Source):
        yield _loaded(source, source.path, shown)
        return
    with tempfile.TemporaryDirectory(prefix="onnxfuse-") as folder:
        path = Path(folder) / "model.onnx"
        io.write(source, path)
        yield _loaded(source, path, shown)


def _loaded(source: io.Source, path: Path, name: str) -> Loaded:
    graph = source.model.graph
    given = {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = tuple(_input(value) for value in graph.input if value.name not in given)
    return Loaded(source, path, name, inputs, tuple(value.name for value in graph.output))


def _input(value: onnx.ValueInfoProto) -> Input:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Input(value.name, TensorProto.UNDEFINED, None)
    if not kind.HasField("shape"):
        return Input(value.name, kind.elem_type, None)
    shape = tuple(
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value >= 0  # some exporters write -1
        else dim.dim_param or f"{value.name}:{axis}"
        for axis, dim in enumerate(kind.shape.dim)
    )
    return Input(value.name, kind.elem_type, shape)
