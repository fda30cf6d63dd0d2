"""Operators that move the elements of a tensor: pad, join, permute."""

import numpy as np

from onnxfuse.reference import windows
from onnxfuse.reference.call import Call, Tensor


def concat(call: Call) -> Tensor:
    """Concat: joins the inputs along axis."""
    return np.concatenate(call.inputs, call.attributes["axis"])


def transpose(call: Call) -> Tensor:
    """Transpose: permutes the axes by perm, or reverses them."""
    return np.transpose(call.inputs[0], call.attributes.get("perm"))


def pad(call: Call) -> Tensor:
    """Pad with a constant; negative pads crop.

    pads and value are attributes before opset 11, then inputs; axes came with opset 18.
    """
    mode = call.attributes.get("mode", "constant")
    if mode != "constant":
        raise call.unsupported(f"mode {mode!r}")
    x = call.inputs[0]
    pads = call.integers("pads", 1) or []
    value = call.attributes.get("value", 0.0) if call.opset < 11 else call.optional(2)
    axes = call.integers("axes", 3)
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(range(x.ndim) if axes is None else axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(pads) // 2]
    return windows.pad(x, begins, ends, 0 if value is None else np.asarray(value).item())


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
