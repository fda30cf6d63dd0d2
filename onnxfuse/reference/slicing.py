"""Operators that pick elements out of a tensor by index or condition, or overwrite them."""

from typing import Any

import numpy as np

from onnxfuse.reference.call import Call, Tensor

_INT_MAX = (2**31 - 1, 2**63 - 1)

_REDUCTIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def slice_(call: Call) -> Tensor:
    """Slice: starts, ends, axes are attributes before opset 10, then inputs, with steps.

    Raises:
        UnsupportedOperator: A backward slice ends at INT_MAX. ONNX Runtime takes this for the
            whole axis, while clamping, as specified, leaves nothing.
    """
    x = call.inputs[0]
    starts = call.integers("starts", 1) or []
    ends = call.integers("ends", 2) or []
    axes = call.integers("axes", 3) or range(len(starts))
    steps = call.integers("steps", 4) or [1] * len(starts)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0 and end in _INT_MAX:
            raise call.unsupported(f"step {step} to {end}")
        # ONNX clamps as Python does, except that a start below the axis is its first element
        index[axis] = slice(max(start, -x.shape[axis]), end, step)
    part: Tensor = x[tuple(index)]
    return part


def split(call: Call) -> tuple[Tensor, ...]:
    """Split: sizes are an attribute before opset 13, then an input; without, equal parts."""
    x = call.inputs[0]
    axis = call.attributes.get("axis", 0)
    sizes = call.integers("split", 1)
    if sizes is None:
        sizes = _equal_parts(x.shape[axis], len(call.node.output), uneven=call.opset >= 18)
    count = len(call.node.output)
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ValueError(f"cannot split {x.shape[axis]} into {count} parts of sizes {sizes}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def _equal_parts(size: int, count: int, uneven: bool) -> list[int]:
    """Parts of one size, of which only the last may be smaller, and only if uneven."""
    part = -(-size // count)  # ceil
    if size % count and not uneven:
        raise ValueError(f"cannot split {size} into {count} equal parts")
    return [min(part, max(size - i * part, 0)) for i in range(count)]


def gather(call: Call) -> Tensor:
    """Gather: picks slices along axis; negative indices count from the end."""
    x, indices = call.inputs
    if indices.dtype.kind not in "iu":
        raise call.unsupported(f"indices of type {indices.dtype}")
    taken: Tensor = np.take(x, indices, call.attributes.get("axis", 0))
    return taken


def gather_nd(call: Call) -> Tensor:
    """GatherND: the last axis of indices addresses the axes of x that follow batch_dims."""
    x, indices = call.inputs
    batch_dims = call.attributes.get("batch_dims", 0)
    batch = np.ix_(*(range(size) for size in x.shape[:batch_dims]))
    # each batch index broadcasts against the indices without their last axis
    inner = (1,) * (indices.ndim - 1 - batch_dims)
    index = [b.reshape(*b.shape, *inner) for b in batch]
    index += [indices[..., i] for i in range(indices.shape[-1])]
    gathered: Tensor = x[tuple(index)]
    return gathered


def gather_elements(call: Call) -> Tensor:
    """GatherElements: y[i][j] = x[indices[i][j]][j] for axis 0, likewise along other axes."""
    x, indices = call.inputs
    gathered: Tensor = x[_index_along(call, x, indices)]
    return gathered


def scatter_nd(call: Call) -> Tensor:
    """ScatterND: a copy of x in which the slices that indices address are overwritten.

    With a reduction (opset 16; max and min 18) they are combined with what is there.
    """
    x, indices, updates = call.inputs
    depth = indices.shape[-1]
    index = tuple(indices[..., i] for i in range(depth))
    return _scatter(call, index, (*indices.shape[:-1], *x.shape[depth:]), updates)


def scatter_elements(call: Call) -> Tensor:
    """ScatterElements, once Scatter: a copy of x with y[indices[i][j]][j] = updates[i][j], axis 0.

    With a reduction (opset 16; max and min 18) updates are combined with what is there.
    """
    x, indices, updates = call.inputs
    return _scatter(call, _index_along(call, x, indices), indices.shape, updates)


def where(call: Call) -> Tensor:
    """Where: elements of x where the condition holds, else of y."""
    chosen: Tensor = np.where(*call.inputs)
    return chosen


def _index_along(call: Call, x: Tensor, indices: Tensor) -> tuple[Any, ...]:
    """The index of each entry of indices, in which the entry replaces the coordinate of axis."""
    axis = range(x.ndim)[call.attributes.get("axis", 0)]
    fits = indices.ndim == x.ndim and all(
        i == axis or size <= x.shape[i] for i, size in enumerate(indices.shape)
    )
    if not fits:
        raise ValueError(f"indices of shape {indices.shape} do not fit x of shape {x.shape}")
    index: list[Any] = list(np.indices(indices.shape, sparse=True))
    index[axis] = indices
    return tuple(index)


def _scatter(
    call: Call, index: tuple[Any, ...], addressed: tuple[int, ...], updates: Tensor
) -> Tensor:
    if updates.shape != addressed:
        raise ValueError(f"updates of shape {updates.shape}, but indices address {addressed}")
    reduction = call.attributes.get("reduction", "none")
    y: Tensor = call.inputs[0].copy()
    if reduction == "none":
        y[index] = updates
    elif reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(y, index, updates)
    else:
        raise call.unsupported(f"reduction {reduction!r}")
    return y
