"""Operators that move the elements of a tensor: pad, join, repeat, permute."""

import numpy as np

from onnxfuse.reference import windows
from onnxfuse.reference.call import Call, Tensor


def concat(call: Call) -> Tensor:
    """Concat: joins the inputs along axis."""
    return np.concatenate(call.inputs, call.attributes["axis"])


def tile(call: Call) -> Tensor:
    """Tile: repeats[i] copies of x along axis i."""
    x, repeats = call.inputs
    if repeats.shape != (x.ndim,):
        raise ValueError(f"x has {x.ndim} axes, but repeats has the shape {repeats.shape}")
    return np.tile(x, repeats)


def transpose(call: Call) -> Tensor:
    """Transpose: permutes the axes by perm, or reverses them."""
    return np.transpose(call.inputs[0], call.attributes.get("perm"))


def pad(call: Call) -> Tensor:
    """Pad: by mode with a constant, the edge, a reflection or a torus; negative pads crop first.

    pads and value are attributes before opset 11, then inputs; axes came with opset 18 and mode
    wrap with opset 19.

    Raises:
        UnsupportedOperator: An axis is padded with itself, but nothing is left of it, or less
            than reflect needs, or wrap crops it at the other end. The specification leaves these
            open, and ONNX Runtime stops, or in the last case forms a torus of what is left.
    """
    x: Tensor = call.inputs[0]
    mode = call.attributes.get("mode", "constant")
    pads = call.integers("pads", 1) or []
    axes = call.integers("axes", 3)
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(range(x.ndim) if axes is None else axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(pads) // 2]
    if mode == "constant":
        value = call.attributes.get("value", 0.0) if call.opset < 11 else call.optional(2)
        return windows.pad(x, begins, ends, 0 if value is None else np.asarray(value).item())
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin or end:
            x = np.take(x, _padding_sources(call, mode, x.shape[axis], begin, end), axis)
    return x


def _padding_sources(call: Call, mode: str, size: int, begin: int, end: int) -> Tensor:
    """The position that each element of a padded axis comes from."""
    positions = np.arange(-begin, size + end)
    kept, added = size + min(begin, 0) + min(end, 0), max(begin, end, 0)
    last = size - 1
    if mode == "edge" and kept > 0:
        return np.clip(positions, 0, last)
    if mode == "reflect" and kept > added:
        return np.asarray(last - np.abs(last - np.abs(positions)))
    if mode == "wrap" and kept > 0 and (kept == size or not added):
        return np.asarray(positions % size)
    raise call.unsupported(f"mode {mode!r} with pads {begin} and {end} around {size} elements")


def depth_to_space(call: Call) -> Tensor:
    """DepthToSpace: channels (block, block, C) for mode DCR or (C, block, block) for mode CRD."""
    (x,) = call.inputs
    block = call.attributes["blocksize"]
    batch, channels, height, width = x.shape
    depth = channels // block**2
    if call.attributes.get("mode", "DCR") == "DCR":
        blocks = x.reshape(batch, block, block, depth, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(batch, depth, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    image: Tensor = blocks.reshape(batch, depth, height * block, width * block)
    return image


def space_to_depth(call: Call) -> Tensor:
    """SpaceToDepth: the inverse of DepthToSpace; mode CRD came with opset 28."""
    (x,) = call.inputs
    block = call.attributes["blocksize"]
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // block, block, width // block, block)
    order = (
        (0, 3, 5, 1, 2, 4) if call.attributes.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    )
    depth = blocks.transpose(order)
    stacked: Tensor = depth.reshape(batch, channels * block**2, height // block, width // block)
    return stacked
