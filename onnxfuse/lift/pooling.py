"""AveragePool and GlobalAveragePool (ONNX, opsets 1 to 22)."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxfuse.affine import Refusal, average_pool
from onnxfuse.lift.convolution import fits_rank, resolve_pads, unary
from onnxfuse.lift.site import Site, Step

_MOST_TAPS = 64
_LARGEST_KERNEL = 1 << 16


def average(site: Site) -> Step | Refusal:
    """AveragePool -> a depthwise kernel of equal taps.

    1. Either count_include_pad=1 or no padding: a mean over fewer positions at the border is not
       one kernel.
    2. auto_pad means the same in the specification and in ONNX Runtime.
    3. ceil_mode adds no window that reaches beyond the padding.
    """
    kernel, name = site.integer_list("kernel_shape") or (), site.input(0)
    channels = site.channels(name)
    if channels is None:
        return Refusal("the number of its channels is not known")
    if not fits_rank(site, len(site.view.spatial)):
        return Refusal("its attributes do not fit its input")
    if math.prod(kernel) > _LARGEST_KERNEL:
        return Refusal("its window is too large for a weight")
    ones = (1,) * len(kernel)
    strides = site.integer_list("strides") or ones
    dilations = site.integer_list("dilations") or ones
    uneven = any(k < s for k, s in zip(kernel, strides, strict=True))
    if site.text("auto_pad", "NOTSET").startswith("SAME") and (uneven or set(dilations) != {1}):
        return Refusal("runtimes differ on auto_pad with dilation, or a stride above the kernel")
    padding = resolve_pads(site, kernel)
    if padding is None:
        return Refusal("its padding depends on a size that is not known")
    pads, at_size = padding
    if any(pads) and not site.integer("count_include_pad", 0):
        return Refusal("its padding is not counted in the mean (count_include_pad=0)")
    pool = replace(average_pool(channels, kernel, strides, dilations, pads), at_size=at_size)
    if site.integer("ceil_mode", 0) and set(strides) != {1}:
        size = site.size(name)
        if size is None:
            return Refusal("ceil_mode with a size that is not known")
        rest = [
            (n + p + q - e) % s
            for n, p, q, e, s in zip(
                size, pool.begins, pool.ends, pool.extents, strides, strict=True
            )
        ]
        if any(rest):
            return Refusal("ceil_mode adds windows that reach beyond the padding")
        pool = replace(pool, at_size=size)
    return unary(name, pool)


def global_average(site: Site) -> Step | Refusal:
    """GlobalAveragePool -> an AveragePool whose kernel is the whole, known, size."""
    name = site.input(0)
    channels, size = site.channels(name), site.size(name)
    if channels is None or not size:
        return Refusal("the size of its input is not known")
    if math.prod(size) > _MOST_TAPS:
        return Refusal("its window is the whole image, which is too much for a weight")
    ones = (1,) * len(size)
    pool = average_pool(channels, size, ones, ones, (0,) * (2 * len(size)))
    return unary(name, replace(pool, at_size=size))
