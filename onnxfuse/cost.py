"""What a node costs, in nanoseconds on one core of a server: a model, to compare plans with.

cost = overhead + multiply-adds * rate + bytes moved * rate. The rates fit measurements in float32
on ONNX Runtime's CPU provider, one thread with AVX-512 (scripts/bench_folds.py): 50 GMAC/s for a
dense convolution whose channels fill the vector registers, less for thin groups, and 16 GB/s to
and from memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onnxfuse.affine import AffineConv, FixedWindow, Size, Term, is_trivial, without_crops

NODE = 1000
BYTE = 0.06
DENSE_MAC = 0.02
THIN_MAC = 0.08
DEPTHWISE_MAC = 0.03
ELEMENT = 4
LANES = 16
UNALIGNED = 1.4
SUM = 0.75
"""Factor on the time of joined branches: one node is taken even where it costs up to a third more
by the rates, since fewer tensors and nodes help on every provider; the rates are those of one."""


@dataclass(frozen=True)
class Work:
    """Work of one node.

    Attributes:
        macs: Multiply-adds.
        bytes: Bytes read and written, weights included.
        nanoseconds: The modelled time, an integer so that sums do not depend on their order.
    """

    macs: int
    bytes: int
    nanoseconds: int


NOTHING = Work(0, 0, 0)


def movement(elements: int) -> Work:
    """A node that reads and writes `elements` float32 values in all."""
    size = ELEMENT * elements
    return Work(0, size, round(NODE + BYTE * size))


def product(macs: int, elements: int) -> Work:
    """A dense product of a tensor with constants; reads and writes `elements` values in all."""
    size = ELEMENT * elements
    return Work(macs, size, round(NODE + DENSE_MAC * macs + BYTE * size))


def pooling(elements_in: int, elements_out: int, taps: int) -> Work:
    """A pooling node: a cheap pass over the window of each output."""
    size = ELEMENT * (elements_in + elements_out)
    return Work(0, size, round(NODE + BYTE * size + DEPTHWISE_MAC * elements_out * taps))


def convolution(term: Term, pixels_in: int, pixels_out: int) -> Work:
    """A Conv, ConvTranspose, Gemm or MatMul over one image.

    Args:
        term: The map; its weight is not touched.
        pixels_in: Spatial positions (or rows) of x.
        pixels_out: Spatial positions (or rows) of y.
    """
    taps = math.prod(term.kernel)
    per_group = term.in_channels // term.groups
    weights = term.out_channels * per_group * taps
    if isinstance(term, AffineConv) or term.op_type != "ConvTranspose":
        macs = pixels_out * weights
    else:
        macs = pixels_in * weights
    size = ELEMENT * (pixels_in * term.in_channels + pixels_out * term.out_channels + weights)
    if term.groups == 1:
        lanes = math.ceil(term.out_channels / LANES) * LANES / term.out_channels
        busy = DENSE_MAC * macs * lanes * (UNALIGNED if per_group % LANES else 1.0)
    elif per_group == 1:
        busy = DEPTHWISE_MAC * macs
    else:
        busy = (DENSE_MAC if per_group >= LANES else THIN_MAC) * macs
    return Work(macs, size, round(NODE + busy + BYTE * size))


def lowered(term: Term, size: Size, pixels_in: int, *, spatial: bool, biased: bool) -> Work:
    """What the nodes for a map cost.

    Args:
        term: The map.
        size: Spatial size of x.
        pixels_in: Spatial positions (or rows) of x.
        spatial: True when a Conv can hold it; a scale and a shift are one node then.
        biased: True when weight and bias fit into one node: a Conv or Gemm, not MatMul and Add.
    """
    if isinstance(term, FixedWindow):
        return convolution(term, pixels_in, pixels_in * scaling(term))
    if is_trivial(term):
        return NOTHING
    pixels_out = max(math.prod(term.output_size(size)), 0) if size else pixels_in
    elements = (pixels_in * term.in_channels, pixels_out * term.out_channels)
    if term.is_channelwise:
        scales, shifts = not (term.weight == 1.0).all(), bool(term.bias.any())
        twice = scales and shifts and not spatial
        return plus(movement(sum(elements)), movement(sum(elements)) if twice else NOTHING)
    work = convolution(without_crops(term), pixels_in, pixels_out)
    if term.reads_outside and term.outside_of is not None:
        work = plus(work, movement(2 * elements[0]))
    if term.bias_of is not None and not biased:
        work = plus(work, movement(2 * elements[1]))
    return replace(work, nanoseconds=round(SUM * work.nanoseconds)) if term.is_sum else work


def beyond_crops(term: AffineConv, size: Size) -> Size:
    """An assumed size of x, so much larger that a map which cuts off most of it leaves some."""
    cuts = (e - 1 - p - q for e, p, q in zip(term.extents, term.begins, term.ends, strict=True))
    return tuple(n + cut if 2 * cut > n else n for n, cut in zip(size, cuts, strict=True))


def scaling(term: Term) -> int:
    """How many output positions a ConvTranspose has per input position."""
    if isinstance(term, AffineConv) or term.op_type != "ConvTranspose":
        return 1
    strides = term.attributes.get("strides", ())
    return math.prod(strides) if isinstance(strides, tuple) else 1


def plus(a: Work, b: Work) -> Work:
    """Both, one after the other."""
    return Work(a.macs + b.macs, a.bytes + b.bytes, a.nanoseconds + b.nanoseconds)
