"""Convolutions over upsampled maps."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnxfuse.fold import Fold
from tests.lift.building import Builder
from tests.lift.comparing import Folded

SIZES = ({"n": 1, "h": 5, "w": 4}, {"n": 2, "h": 1, "w": 3})
C = 96  # so many that every kernel pays
M = 16
FLOOR = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def start(b: Builder, channels: int = C, h: object = "h", w: object = "w", name: str = "x") -> str:
    return b.op("Relu", b.input("n", channels, h, w, name=name))


def up(b: Builder, x: str, *factors: float, output: str = "", **settings: object) -> str:
    """x, larger; by the form of the opset, and by default as PyTorch's exporter writes it."""
    height, width = factors * 2 if len(factors) == 1 else factors
    scales = [1.0, 1.0, float(height), float(width)]
    if b.opset < 9:
        return b.op("Upsample", x, scales=scales, output=output, **settings)
    if b.opset < 11:
        op = "Upsample" if b.opset < 10 else "Resize"
        return b.op(op, x, b.constant(scales), output=output, **settings)
    roi = b.constant(np.zeros(0), elem_type=TensorProto.FLOAT) if b.opset < 13 else ""
    given = b.constant(scales, elem_type=TensorProto.FLOAT)
    settings = {"mode": "nearest", **FLOOR, **settings}
    return b.op("Resize", x, roi, given, output=output, **settings)


def behind(b: Builder, y: str) -> str:
    return b.op("Relu", y)


def pads_of(kernel: tuple[int, ...]) -> list[int]:
    return [*((k - 1) // 2 for k in kernel), *(k // 2 for k in kernel)]


def conv(b: Builder, x: str, channels: int = C, kernel: tuple[int, ...] = (3, 3), **how) -> str:
    settings = {"pads": pads_of(kernel), **how}
    return b.conv(x, channels, settings.pop("outputs", M), kernel, **settings)


def rewritten(folded: Folded, *gone: str) -> Fold:
    """The rewrite, the only one."""
    (fold,) = [f for f in folded.report.folds if "DepthToSpace" in f.nodes]
    assert fold.certificate.error < 1e-12
    assert folded.ops["DepthToSpace"] == 1
    assert not set(gone) & set(folded.ops)
    return fold


def mixed(b: Builder, order: str, bias: bool = True, axis: int = 1, **how: object) -> str:
    """A convolution over a Concat; by letter, what is upsampled by 8, 4, 2 and 1."""
    factors = {"a": 8, "b": 4, "c": 2, "d": 1, "e": 1}
    parts, total = [], 0
    for number, letter in enumerate(order):
        f, channels = factors[letter], 40 + number
        x = start(b, channels, f"{8 // f}*k", f"{8 // f}*m", name=f"x{number}")
        parts.append(x if f == 1 else up(b, x, f))
        total += channels
    return conv(b, b.op("Concat", *parts, axis=axis), total, bias=bias, **how)


def sizes_of_mixed() -> list[dict[str, int]]:
    made = []
    for n, k, m in ((1, 1, 2), (2, 2, 1)):
        symbols = {f"{f}*{s}": f * v for f in (1, 2, 4, 8) for s, v in (("k", k), ("m", m))}
        made.append({"n": n, **symbols})
    return made
