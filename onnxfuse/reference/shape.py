"""Operators that give a tensor another shape and leave the order of its elements alone."""

from math import prod

import numpy as np

from onnxfuse.reference.call import Call, Tensor


def shape(call: Call) -> Tensor:
    """Shape: the shape as int64, from axis start to axis end (opset 15)."""
    start, end = call.attributes.get("start"), call.attributes.get("end")
    return np.array(call.inputs[0].shape[start:end], np.int64)


def reshape(call: Call) -> Tensor:
    """Reshape: -1 is inferred; 0 copies the input's size, unless allowzero (opset 14) is set."""
    x, sizes = call.inputs[0], list(_sizes(call))
    if not call.attributes.get("allowzero", 0):
        sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
    reshaped: Tensor = x.reshape(sizes)
    return reshaped


def flatten(call: Call) -> Tensor:
    """Flatten: a matrix; the axes before axis make its rows."""
    (x,) = call.inputs
    axis = call.attributes.get("axis", 1)
    rows, columns = x.shape[:axis], x.shape[axis:]
    flat: Tensor = x.reshape(prod(rows), prod(columns))
    return flat


def squeeze(call: Call) -> Tensor:
    """Squeeze: removes axes (attribute before opset 13, then input) of size 1, or all such."""
    axes = call.integers("axes", 1)
    squeezed: Tensor = np.squeeze(call.inputs[0], None if axes is None else tuple(axes))
    return squeezed


def unsqueeze(call: Call) -> Tensor:
    """Unsqueeze: inserts axes (attribute before opset 13, then input), counted in the output."""
    axes = call.integers("axes", 1)
    return np.expand_dims(call.inputs[0], tuple(axes or ()))


def expand(call: Call) -> Tensor:
    """Expand: broadcasts x and shape with each other."""
    x = call.inputs[0]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, _sizes(call)))


def _sizes(call: Call) -> tuple[int, ...]:
    """The shape that the second input gives."""
    target = call.inputs[1]
    if target.ndim != 1:
        raise ValueError(f"a shape of shape {list(target.shape)}")
    return tuple(int(size) for size in target)
