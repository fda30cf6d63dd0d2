"""Convolutions whose channels are cut into parts."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfuse.fold import Fold
from tests.lift.building import Builder
from tests.lift.comparing import Folded

SIZES = ({"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 4, "w": 3})
K = 20  # channels of x
C = 64
HALVES = (32, 32)


def start(b: Builder, channels: int = K, h: object = "h", w: object = "w", name: str = "x") -> str:
    return b.op("Tanh", b.input("n", channels, h, w, name=name))


def conv(b: Builder, x: str, channels: int = C, kernel: Sequence[int] = (1, 1), **how) -> str:
    return b.conv(x, how.pop("inputs", K), channels, kernel, **how)


def silu(b: Builder, x: str) -> str:
    return b.op("Mul", x, b.op("Sigmoid", x))


def split(
    b: Builder,
    y: str,
    sizes: Sequence[int] | None = HALVES,
    outputs: Sequence[str] | int = 2,
    axis: int = 1,
) -> list[str]:
    """y in parts, by the form of the opset; equal ones without sizes."""
    if sizes is None:
        settings = {"num_outputs": outputs} if b.opset >= 18 else {}
        return b.ops("Split", y, outputs=outputs, axis=axis, **settings)
    outputs = len(sizes) if isinstance(outputs, int) else outputs
    if b.opset < 13:
        return b.ops("Split", y, outputs=outputs, axis=axis, split=list(sizes))
    return b.ops("Split", y, b.constant(list(sizes)), outputs=outputs, axis=axis)


def part(b: Builder, y: str, first: int, last: int, output: str = "", axis: int = 1) -> str:
    """Some channels of y, by a Slice in the form of the opset."""
    if b.opset < 10:
        return b.op("Slice", y, output=output, starts=[first], ends=[last], axes=[axis])
    return b.op("Slice", y, *(b.constant([n]) for n in (first, last, axis)), output=output)


def behind(b: Builder, parts: Sequence[str], sizes: Sequence[int] = HALVES) -> str:
    """A convolution on the last part, joined with all of them, and one more."""
    y = b.op("Relu", b.conv(parts[-1], sizes[-1], 8, pads=[1] * 4))
    y = b.op("Concat", *parts, y, axis=1)
    return b.op("Relu", b.conv(y, sum(sizes) + 8, 5, (1, 1)))


def rewritten(folded: Folded, parts: int = 2, *gone: str) -> list[Fold]:
    """The rewrites, one for each part."""
    folds = [fold for fold in folded.report.folds if fold.step == "splits"]
    assert len(folds) == parts
    assert max(fold.certificate.error for fold in folds) < 1e-12
    assert not {"Split", "Slice", *gone} & set(folded.ops)
    return folds
