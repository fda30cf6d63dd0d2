"""Conv and ConvTranspose: im2col and one matrix product per group."""

from math import prod

import numpy as np

from onnxfuse.reference.call import Call, Tensor
from onnxfuse.reference.windows import (
    explicit_pads,
    extents,
    pad_spatial,
    resolve_pads,
    split_padding,
    strides_and_dilations,
    windows,
)

LARGE_KERNEL = 64  # taps of a depthwise kernel from which im2col copies cost more than they save


def conv(call: Call) -> Tensor:
    """Conv: x (N, C, *size), weight (M, C / groups, *kernel), bias (M)."""
    x, weight = call.inputs[:2]
    groups = call.attributes.get("group", 1)
    _check_channels(x, groups * weight.shape[1], "groups * weight.shape[1]")
    kernel = weight.shape[2:]
    strides, dilations = strides_and_dilations(call, len(kernel))
    begins, ends = resolve_pads(call, x.shape[2:], extents(kernel, dilations), strides)
    patches = windows(pad_spatial(x, begins, ends), kernel, strides, dilations)
    large = prod(kernel) >= LARGE_KERNEL
    product = _depthwise if weight.shape[1] == 1 and large else _grouped
    return _add_bias(product(patches, weight, groups), call.optional(2))


def _grouped(patches: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Weight times patches (N, C, *out, *kernel), group by group: (N, M, *out)."""
    batch, channels = patches.shape[:2]
    rank = weight.ndim - 2
    out, kernel = patches.shape[2 : 2 + rank], patches.shape[2 + rank :]
    taps = channels // groups * prod(kernel)
    rows = weight.reshape(groups, weight.shape[0] // groups, taps)
    # (C, *kernel, N, *out): a column for each output pixel
    columns = np.moveaxis(patches, (0, *range(2, 2 + rank)), range(-1 - rank, 0))
    y: Tensor = rows @ columns.reshape(groups, taps, batch * prod(out))
    return np.moveaxis(y.reshape(weight.shape[0], batch, *out), 1, 0)


def _depthwise(patches: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The same where each group has one input channel, without copying patches."""
    batch = patches.shape[0]
    rank = weight.ndim - 2
    out, kernel = patches.shape[2 : 2 + rank], patches.shape[2 + rank :]
    filters = weight.reshape(groups, weight.shape[0] // groups, *kernel)
    pixel, tap = list(range(3, 3 + rank)), list(range(3 + rank, 3 + 2 * rank))
    # y[n, c, m, pixel] = sum over tap of patches[n, c, pixel, tap] * filters[c, m, tap]
    y: Tensor = np.einsum(patches, [0, 1, *pixel, *tap], filters, [1, 2, *tap], [0, 1, 2, *pixel])
    return y.reshape(batch, weight.shape[0], *out)


def conv_transpose(call: Call) -> Tensor:
    """ConvTranspose: x (N, C, *size), weight (C, M / groups, *kernel), bias (M).

    Raises:
        UnsupportedOperator: Its pads leave less than nothing of its output.
    """
    x, weight = call.inputs[:2]
    _check_channels(x, weight.shape[0], "weight.shape[0]")
    groups = call.attributes.get("group", 1)
    sizes, kernel = x.shape[2:], weight.shape[2:]
    strides, dilations = strides_and_dilations(call, len(kernel))
    outputs = weight.shape[1] * groups  # M
    full_sizes = [
        (size - 1) * stride + span
        for size, stride, span in zip(sizes, strides, extents(kernel, dilations), strict=True)
    ]
    taps = _tap_images(x, weight, groups).reshape(outputs, *kernel, x.shape[0], *sizes)
    full = np.zeros((outputs, x.shape[0], *full_sizes))
    for tap in np.ndindex(*kernel):
        # every input pixel i adds to the output pixel i * stride + tap * dilation
        target = [
            slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
            for t, dilation, size, stride in zip(tap, dilations, sizes, strides, strict=True)
        ]
        full[(slice(None), slice(None), *target)] += taps[(slice(None), *tap)]
    begins, ends = _transposed_crop(call, sizes, strides, full_sizes)
    if any(f < b + e for f, b, e in zip(full_sizes, begins, ends, strict=True)):
        raise call.unsupported("its pads are larger than its output")
    y = pad_spatial(full, [-b for b in begins], [-e for e in ends])
    return _add_bias(np.moveaxis(y, 0, 1), call.optional(2))


def _tap_images(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """What each tap of each output channel makes of x: (groups, M / groups * taps, N * pixels)."""
    channels = x.shape[1] // groups
    columns = np.moveaxis(x, 0, 1).reshape(groups, channels, x.size // x.shape[1])
    rows = weight.reshape(groups, channels, weight.size // weight.shape[0]).transpose(0, 2, 1)
    return rows * columns if channels == 1 else rows @ columns


def _transposed_crop(
    call: Call, sizes: tuple[int, ...], strides: list[int], full_sizes: list[int]
) -> tuple[list[int], list[int]]:
    """How much of a ConvTranspose's full output is cut off at each end; negative adds zeros.

    Raises:
        UnsupportedOperator: auto_pad SAME asks for more than the full output. There ONNX Runtime
            departs from the specification.
    """
    rank = len(sizes)
    extra = call.attributes.get("output_padding") or [0] * rank
    auto_pad = call.attributes.get("auto_pad", "NOTSET")
    unpadded = [full + e for full, e in zip(full_sizes, extra, strict=True)]
    if call.attributes.get("output_shape"):
        target = call.attributes["output_shape"][-rank:]  # early exporters also wrote N and C
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        target = [size * stride for size, stride in zip(sizes, strides, strict=True)]
        if any(u < t for u, t in zip(unpadded, target, strict=True)):
            raise call.unsupported(f"auto_pad to {target} from {unpadded}")
    else:
        begins, ends = explicit_pads(call, rank)
        return begins, [end - e for end, e in zip(ends, extra, strict=True)]
    total = [max(u - t, 0) for u, t in zip(unpadded, target, strict=True)]
    begins, _ = split_padding(total, auto_pad == "SAME_UPPER")
    return begins, [f - b - t for f, b, t in zip(full_sizes, begins, target, strict=True)]


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))


def _check_channels(x: Tensor, expected: int, meaning: str) -> None:
    if x.shape[1] != expected:
        raise ValueError(f"x has {x.shape[1]} channels, but {meaning} is {expected}")
