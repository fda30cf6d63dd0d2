"""Resize and Upsample to the nearest element, by whole factors.

Elsewhere it hangs on how a runtime rounds which element is the nearest.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from onnxfuse.reference.call import Call, Tensor

HALF = Fraction(1, 2)

_NEAREST: Mapping[str, Callable[[Fraction], int]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "round_prefer_ceil": lambda position: math.floor(position + HALF),
    "round_prefer_floor": lambda position: math.ceil(position - HALF),
}
_CENTRED = frozenset({"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"})
"""The same for whole factors: nothing is left over at the ends."""


def resize(call: Call) -> Tensor:
    """Resize and Upsample: x by scales, or to sizes.

    Upsample and Resize before opset 11 take i / scale rounded down; scales are an attribute in
    opset 7, the input behind x up to opset 10, and the one behind roi then. Axes that keep their
    size stay as they are, as in ONNX Runtime, also where the formula moves them by half an element.
    """
    x: Tensor = call.inputs[0]
    for axis, factor in enumerate(_factors(call)):
        if factor > 1:
            sources = [_source(call, i, factor) for i in range(factor * x.shape[axis])]
            x = np.take(x, np.clip(np.array(sources, int), 0, x.shape[axis] - 1), axis)
    return x


def count(call: Call) -> int:
    """How many elements it makes."""
    return math.prod((call.inputs[0].size, *_factors(call)))


def _factors(call: Call) -> list[int]:
    """By how much each axis grows.

    Raises:
        UnsupportedOperator: By a factor that is not whole; in another mode; of some axes alone.
    """
    mode = call.attributes.get("mode", "nearest")
    if mode != "nearest":
        raise call.unsupported(f"mode {mode!r}")
    for name, usual in (("keep_aspect_ratio_policy", "stretch"), ("antialias", 0), ("axes", None)):
        if call.attributes.get(name, usual) != usual:
            raise call.unsupported(f"{name} {call.attributes[name]!r}")
    shape, sizes = call.inputs[0].shape, call.optional(3)
    scales = call.attributes.get("scales", call.optional(1 if call.opset < 11 else 2))
    if scales is not None and np.size(scales):
        exact = [Fraction(float(scale)) for scale in np.ravel(scales)]
    elif sizes is not None and 0 not in shape and len(shape) == sizes.size:
        exact = [Fraction(int(m), n) for m, n in zip(sizes.ravel(), shape, strict=True)]
    else:
        raise call.unsupported("it has neither scales nor sizes")
    if len(exact) != len(shape):
        raise ValueError(f"x has {len(shape)} axes, but there are {len(exact)} scales")
    if any(scale.denominator != 1 or scale < 1 for scale in exact):
        raise call.unsupported(f"not by whole factors but by {[float(s) for s in exact]}")
    return [int(scale) for scale in exact]


def _source(call: Call, i: int, factor: int) -> int:
    """Which element of an axis is the nearest to element i of it, resized."""
    if call.opset < 11:
        return i // factor
    way = call.attributes.get("coordinate_transformation_mode", "half_pixel")
    centre = (i + HALF) / factor
    if way == "asymmetric":
        position = Fraction(i, factor)
    elif way == "tf_half_pixel_for_nn":
        position = centre
    elif way in _CENTRED:
        position = centre - HALF
    else:
        raise call.unsupported(f"coordinate_transformation_mode {way!r}")
    return _NEAREST[call.attributes.get("nearest_mode", "round_prefer_floor")](position)
