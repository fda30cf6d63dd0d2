"""Layers that share a weight."""

from __future__ import annotations

PADS = [1, 1, 1, 1]
SIZES = ({"n": 1, "h": 4, "w": 4}, {"n": 2, "h": 5, "w": 3})
C = 32
LARGE, MIDDLE, SMALL = (64, C, 3, 3), (48, C, 3, 3), (8, C, 3, 3)  # 72, 54 and 9 KiB
SHARED = "its weight 'shared' is shared: folding would add"


def levels(b, count):
    return [b.input("n", C, "h", "w", name=f"level{number}") for number in range(count)]


def scaled(b, x, shape, weight="shared"):
    return b.op("Mul", b.op("Conv", x, weight, pads=PADS), b.random(shape[0], 1, 1))


def ratio(model, folded):
    return folded.model.ByteSize() / model.ByteSize()
