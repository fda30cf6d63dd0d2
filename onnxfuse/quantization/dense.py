"""Sparse initializers, written out: onnxruntime.quantization does not know them."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse.errors import ModelError

_MOST = 1 << 31  # bytes that a message holds


def dense(model: onnx.ModelProto, where: str) -> None:
    """Makes the sparse initializers of a model's graph ordinary ones, in place.

    Args:
        model: A model with its data in it.
        where: What messages begin with.

    Raises:
        ModelError: An index is outside of its tensor, or a tensor is too large.
    """
    graph = model.graph
    for sparse in graph.sparse_initializer:
        name, dims = sparse.values.name, tuple(sparse.dims)
        values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        if math.prod(dims) * values.itemsize >= _MOST:
            raise ModelError(f"{where}: the sparse {name!r} is too large to be written out")
        made = np.zeros(dims, values.dtype)
        try:
            if places.ndim == 1:
                made.reshape(-1)[places] = values
            else:
                made[tuple(places.T)] = values
        except (IndexError, ValueError) as error:
            raise ModelError(f"{where}: the sparse {name!r} has places outside of it") from error
        graph.initializer.append(numpy_helper.from_array(made, name))
    del graph.sparse_initializer[:]
