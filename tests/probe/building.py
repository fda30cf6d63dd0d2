"""Convolutions written as data movement, node by node; and what is to become of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx

from tests.lift.building import Builder
from tests.lift.comparing import Folded

C, OUT = 4, 6
H, W = 9, 10
MANY = np.iinfo(np.int64).max
SIZES = ({"n": 1, "h": 7, "w": 9}, {"n": 3, "h": 12, "w": 6})
BATCHES = ({"n": 1}, {"n": 3})


def cut(b: Builder, x: str, axes, starts, ends, steps=None) -> str:
    steps = [1] * len(axes) if steps is None else steps
    return b.op("Slice", x, *(b.constant(list(v)) for v in (starts, ends, axes, steps)))


def padded(b: Builder, x: str, begins: Sequence[int], ends: Sequence[int], *value: str) -> str:
    return b.op("Pad", x, b.constant([0, 0, *begins, 0, 0, *ends]), *value)


def reshaped(b: Builder, x: str, *shape: int | str) -> str:
    """Reshape to numbers and to tensors that hold one."""
    if all(isinstance(n, int) for n in shape):
        return b.op("Reshape", x, b.constant(list(shape)))
    parts = [n if isinstance(n, str) else b.constant([n]) for n in shape]
    return b.op("Reshape", x, b.op("Concat", *parts, axis=0))


def size_of(b: Builder, x: str, axis: int, added: int = 0) -> str:
    """Shape -> Gather -> Add, a tensor of one number."""
    size = b.op("Gather", b.op("Shape", x), b.constant([axis]), axis=0)
    return b.op("Add", size, b.constant([added])) if added else size


def out_size(sizes, kernel, strides, dilations, pads):
    rank = len(kernel)
    return [
        (n + p + q - (k - 1) * d - 1) // s + 1
        for n, p, q, k, s, d in zip(
            sizes, pads[:rank], pads[rank:], kernel, strides, dilations, strict=True
        )
    ]


def slices(b: Builder, x: str, sizes, kernel, strides, dilations) -> list[str]:
    """One strided Slice of the padded x for each tap of the kernel."""
    space = range(2, 2 + len(kernel))
    return [
        cut(
            b,
            x,
            space,
            [t * d for t, d in zip(tap, dilations, strict=True)],
            [
                t * d + (m - 1) * s + 1
                for t, d, m, s in zip(tap, dilations, sizes, strides, strict=True)
            ],
            strides,
        )
        for tap in itertools.product(*map(range, kernel))
    ]


def im2col(
    b: Builder,
    x: str,
    size: Sequence[int],
    kernel: Sequence[int] = (3, 3),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    groups: int = 1,
    bias: bool = True,
    channels: int = C,
) -> str:
    """Slices, stacked and multiplied: a convolution C -> OUT at one size."""
    rank, count = len(kernel), math.prod(kernel)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = pads or [k // 2 for k in kernel] * 2
    sizes = out_size(size, kernel, strides, dilations, pads)
    x = padded(b, x, pads[:rank], pads[rank:])
    taps = slices(b, x, sizes, kernel, strides, dilations)
    stacked = b.op("Concat", *(b.op("Unsqueeze", t, b.constant([2])) for t in taps), axis=2)
    if groups == 1:
        columns = reshaped(b, stacked, -1, channels * count, math.prod(sizes))
        y = b.op("MatMul", b.random(OUT, channels * count), columns)
    else:
        width = channels // groups * count
        columns = reshaped(b, stacked, -1, groups, width, math.prod(sizes))
        y = b.op("MatMul", b.random(groups, OUT // groups, width), columns)
    y = reshaped(b, y, -1, OUT, *sizes)
    return b.op("Add", y, b.random(OUT, *(1,) * rank)) if bias else y


def rim(b: Builder, x: str, shape: Sequence[int], values: np.ndarray, sides=None, **given) -> str:
    """Pad by one, then the rim overwritten by one value per channel; `shape` is that of x."""
    batch, channels, *size = shape
    rank = len(size)
    x = padded(b, x, [1] * rank, [1] * rank)
    where = np.zeros([n + 2 for n in size], dtype=bool)
    for axis, end in itertools.product(range(rank), (0, -1)) if sides is None else sides:
        np.moveaxis(where, axis, 0)[end] = True
    spots = np.argwhere(np.broadcast_to(where, (batch, channels, *where.shape)))
    updates = b.constant(values[spots[:, 1]])
    return b.op("ScatterND", x, b.constant(spots), updates, **given)


def pointwise(b: Builder, x: str, rank: int = 2) -> tuple[str, np.ndarray]:
    """A 1x1 Conv, and its bias as the model's type has it."""
    bias = b.values(C).astype(onnx.helper.tensor_dtype_to_np_dtype(b.elem_type))
    weight = b.random(C, C, *(1,) * rank)
    return b.op("Conv", x, weight, b.constant(bias.astype(np.float64))), bias.astype(np.float64)


def folds_to_one_conv(folded: Folded) -> onnx.NodeProto:
    assert folded.ops == {"Conv": 1}, folded.reasons
    return folded.node("Conv")


def attribute(node: onnx.NodeProto, name: str):
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return found.get(name)


def stays(folded: Folded, reason: str, **ops: int) -> None:
    for op, count in ops.items():
        assert folded.ops[op] == count, folded.ops
    assert reason in folded.reasons, folded.reasons


def flat_windows(width: int, columns=range(W), rows=range(H)) -> np.ndarray:
    """Where in an image, flattened row by row, the 3x3 windows are: (9, P)."""
    pixels = np.array([i * width + j for i in rows for j in columns])
    return np.array([[i * width + j] for i in range(3) for j in range(3)]) + pixels
