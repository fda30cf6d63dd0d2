"""Sliding windows over the spatial axes, and the padding that ONNX asks for around them."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onnxfuse.reference.call import Call, Tensor


def extents(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """How many pixels a dilated kernel spans along each axis."""
    return [(k - 1) * dilation + 1 for k, dilation in zip(kernel, dilations, strict=True)]


def strides_and_dilations(call: Call, rank: int) -> tuple[list[int], list[int]]:
    """The node's strides and dilations for rank spatial axes, 1 where it names none."""
    ones = [1] * rank
    return call.attributes.get("strides") or ones, call.attributes.get("dilations") or ones


def explicit_pads(call: Call, rank: int) -> tuple[list[int], list[int]]:
    """The attribute pads: zeros added before and after each spatial axis; none if VALID."""
    if call.attributes.get("auto_pad") == "VALID":
        return [0] * rank, [0] * rank
    pads = call.attributes.get("pads") or [0] * (2 * rank)
    if min(pads, default=0) < 0:
        raise call.unsupported(f"negative pads {pads}")
    return pads[:rank], pads[rank:]


def split_padding(total: Sequence[int], upper: bool) -> tuple[list[int], list[int]]:
    """Shares total out evenly; an odd pixel goes to the end if upper, else to the beginning."""
    smaller = [t // 2 for t in total]
    larger = [t - t // 2 for t in total]
    return (smaller, larger) if upper else (larger, smaller)


def resolve_pads(
    call: Call, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The padding of a Conv or AveragePool before and after each axis, auto_pad worked out.

    SAME_UPPER and SAME_LOWER pad so that the output has ceil(size / stride) pixels.

    Args:
        call: The node.
        sizes: The input's spatial sizes.
        spans: How many pixels a window spans along each axis.
        strides: The steps between windows.
    """
    auto_pad = call.attributes.get("auto_pad", "NOTSET")
    if auto_pad in ("NOTSET", "VALID"):
        return explicit_pads(call, len(sizes))
    total = [
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, span, stride in zip(sizes, spans, strides, strict=True)
    ]
    return split_padding(total, auto_pad == "SAME_UPPER")


def pad(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0) -> Tensor:
    """Adds begins and ends elements of value around each axis of x; negative counts remove."""
    if not any(begins) and not any(ends):
        return x
    shape = [n + b + e for n, b, e in zip(x.shape, begins, ends, strict=True)]
    padded = np.full(shape, value, x.dtype)
    # along each axis padded[i] = x[i - b], wherever both indices exist
    low = [max(b, 0) for b in begins]
    high = [max(min(n + b, m), 0) for n, b, m in zip(x.shape, begins, shape, strict=True)]
    source = [slice(lo - b, max(hi - b, 0)) for lo, hi, b in zip(low, high, begins, strict=True)]
    padded[tuple(map(slice, low, high))] = x[tuple(source)]
    return padded


def pad_spatial(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0) -> Tensor:
    """Pads the spatial axes of x (N, C, *size)."""
    return pad(x, [0, 0, *begins], [0, 0, *ends], value)


def windows(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Tensor:
    """The windows of x (N, C, *size) as a read-only view of shape (N, C, *out, *kernel)."""
    spatial = tuple(range(2, x.ndim))
    view = sliding_window_view(x, extents(kernel, dilations), spatial)
    steps = [slice(None, None, step) for step in (1, 1, *strides, *dilations)]
    return view[tuple(steps)]
