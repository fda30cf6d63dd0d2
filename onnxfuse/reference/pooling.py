"""AveragePool, MaxPool and GlobalAveragePool: mean or maximum over windows."""

from collections.abc import Sequence

import numpy as np

from onnxfuse.reference.call import Call, Tensor
from onnxfuse.reference.windows import (
    extents,
    pad_spatial,
    resolve_pads,
    strides_and_dilations,
    windows,
)


def average_pool(call: Call) -> Tensor:
    """AveragePool: the sum of each window over the number of elements that count in it.

    Padding counts if count_include_pad is set. What a window of ceil_mode spans beyond the padding
    never counts.

    Raises:
        UnsupportedOperator: auto_pad SAME with dilations, or with windows that leave gaps. There
            ONNX Runtime departs from the specification.
    """
    (x,) = call.inputs
    kernel, strides, dilations, spans = _windows(call)
    begins, ends = resolve_pads(call, x.shape[2:], spans, strides)
    overhang = [0] * len(kernel)
    if call.attributes.get("ceil_mode", 0):
        overhang = _ceil_overhang(x.shape[2:], begins, ends, spans, strides)

    def window_sums(padded: Tensor) -> Tensor:
        view = windows(pad_spatial(padded, [0] * len(kernel), overhang), kernel, strides, dilations)
        sums: Tensor = view.sum(tuple(range(-len(kernel), 0)))
        return sums

    counted = np.ones((1, 1, *x.shape[2:]))
    include_pad = call.attributes.get("count_include_pad", 0)
    counts = window_sums(pad_spatial(counted, begins, ends, value=include_pad))
    return window_sums(pad_spatial(x, begins, ends)) / counts


def max_pool(call: Call) -> Tensor:
    """MaxPool: the largest element of each window; padding is smaller than everything.

    Raises:
        UnsupportedOperator: As for AveragePool.
    """
    (x,) = call.inputs
    kernel, strides, dilations, spans = _windows(call)
    begins, ends = resolve_pads(call, x.shape[2:], spans, strides)
    if call.attributes.get("ceil_mode", 0):
        more = _ceil_overhang(x.shape[2:], begins, ends, spans, strides)
        ends = [end + extra for end, extra in zip(ends, more, strict=True)]
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = pad_spatial(x, begins, ends, value=lowest)
    view = windows(padded, kernel, strides, dilations)
    largest = np.full(view.shape[: x.ndim], lowest, x.dtype)
    for tap in np.ndindex(*kernel):  # several times faster than a maximum over the last axes
        np.maximum(largest, view[(..., *tap)], out=largest)
    return largest


def _windows(call: Call) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, and the pixels that a window spans."""
    kernel = call.attributes["kernel_shape"]
    strides, dilations = strides_and_dilations(call, len(kernel))
    spans = extents(kernel, dilations)
    if call.attributes.get("auto_pad", "NOTSET").startswith("SAME"):
        if max(dilations) > 1:
            raise call.unsupported(f"auto_pad with dilations {dilations}")
        if any(span < stride for span, stride in zip(spans, strides, strict=True)):
            raise call.unsupported(f"auto_pad with kernel {kernel} and strides {strides}")
    return kernel, strides, dilations, spans


def _ceil_overhang(
    sizes: Sequence[int],
    begins: Sequence[int],
    ends: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
) -> list[int]:
    """How far the last window of ceil_mode reaches beyond the padding, along each axis."""
    overhang = []
    for size, begin, end, span, stride in zip(sizes, begins, ends, spans, strides, strict=True):
        steps = -(-(size + begin + end - span) // stride)  # ceil
        if steps * stride >= size + begin:  # the window would start in the padding at the end
            steps -= 1
        overhang.append(max(steps * stride + span - (size + begin + end), 0))
    return overhang


def global_max_pool(call: Call) -> Tensor:
    """GlobalMaxPool: the largest element over all spatial axes."""
    (x,) = call.inputs
    largest: Tensor = x.max(tuple(range(2, x.ndim)), keepdims=True)
    return largest


def global_average_pool(call: Call) -> Tensor:
    """GlobalAveragePool: the mean over all spatial axes."""
    (x,) = call.inputs
    mean: Tensor = x.mean(tuple(range(2, x.ndim)), keepdims=True)
    return mean
