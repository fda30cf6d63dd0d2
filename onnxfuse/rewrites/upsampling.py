"""Resize and Upsample that repeat every pixel: y[i] = x[i // f].

1. The mode is nearest, by f in height and in width, whole numbers; batch and channels stay.
2. Where sizes are given instead of scales, those of x are known.
3. Element i of an axis comes from i // f: by the formulas of the operator, in exact arithmetic, the
   first f come from element 0; the next f from the one behind it, and so on.
4. Nothing else is asked for: no axes of its own, no aspect ratio, no antialiasing.

Then it may be done in two steps: y = 2 times (f / 2 times x). 3 holds for f / 2 too, whose elements
come from positions between those of f.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import onnx

from onnxfuse.graph import Array, Graph
from onnxfuse.messages import attributes, operator

OPERATORS = frozenset({"Resize", "Upsample"})
_FIRST_WITH_ROI = 11
_MOST = 1 << 10  # a larger factor is not looked at
_HALF = Fraction(1, 2)

_POSITIONS: Mapping[bytes, Callable[[int, int], Fraction]] = {
    b"asymmetric": lambda i, f: Fraction(i, f),
    b"tf_half_pixel_for_nn": lambda i, f: (i + _HALF) / f,
    **dict.fromkeys(
        (b"half_pixel", b"half_pixel_symmetric", b"pytorch_half_pixel"),
        lambda i, f: (i + _HALF) / f - _HALF,
    ),
}
"""Where element i lies in x, for a whole factor f: all of them f further for i + f."""

_NEAREST: Mapping[bytes, Callable[[Fraction], int]] = {
    b"floor": math.floor,
    b"ceil": math.ceil,
    b"round_prefer_floor": lambda position: math.ceil(position - _HALF),
    b"round_prefer_ceil": lambda position: math.floor(position + _HALF),
}

_PLAIN: Mapping[str, Any] = {
    "mode": b"nearest",
    "keep_aspect_ratio_policy": b"stretch",
    "antialias": 0,
}


class Upsampling(NamedTuple):
    """A node that repeats pixels.

    Attributes:
        node: Its index.
        x: What it repeats.
        factors: How often, in height and in width.
        sizes: The constant that says how large the result is; empty where there are scales.
    """

    node: int
    x: str
    factors: tuple[int, int]
    sizes: str


def upsampling(graph: Graph, index: int) -> Upsampling | None:
    """The node as an upsampling of images by even factors, or None."""
    node = graph.nodes[index]
    found = repeats(graph, index)
    if found is None or len(found) != 2 or any(f % 2 for f in found):
        return None
    sizes = _scales(graph, node, _given(node))[1]
    return Upsampling(index, node.input[0], (found[0], found[1]), sizes)


def repeats(graph: Graph, index: int) -> tuple[int, ...] | None:
    """How often a node repeats each pixel, for each spatial axis; None where it does not."""
    node = graph.nodes[index]
    if operator(node) not in OPERATORS:
        return None
    given = _given(node)
    if "axes" in given or any(given.get(name, usual) != usual for name, usual in _PLAIN.items()):
        return None
    scales, _ = _scales(graph, node, given)
    if scales is None or len(scales) < 3 or any(s.denominator != 1 for s in scales):
        return None
    batch, channels, *rest = map(int, scales)
    if (batch, channels) != (1, 1) or not all(1 <= f <= _MOST for f in rest):
        return None
    return tuple(rest) if all(_repeats(graph, given, f) for f in rest) else None


def _given(node: onnx.NodeProto) -> dict[str, Any]:
    return {name: onnx.helper.get_attribute_value(a) for name, a in attributes(node).items()}


def half(
    graph: Graph, found: Upsampling, target: str
) -> tuple[str, list[onnx.NodeProto], dict[str, Array]]:
    """The same by half the factors: the tensor, the nodes that make it, and their constants."""
    factors = [f // 2 for f in found.factors]
    if factors == [1, 1]:
        return found.x, [], {}
    old = graph.nodes[found.node]
    name = graph.unique_name(f"{target}/{old.op_type}")
    node = onnx.NodeProto(op_type=old.op_type, domain=old.domain, name=name, output=[name])
    node.attribute.extend(a for a in old.attribute if a.name != "scales")
    scales = np.array([1, 1, *factors], np.float32)
    if "scales" in attributes(old):
        node.input.append(found.x)
        node.attribute.append(onnx.helper.make_attribute("scales", scales.tolist()))
        return name, [node], {}
    constant = graph.unique_name(f"{name}/scales")
    roi = old.input[1:2] if graph.opset >= _FIRST_WITH_ROI else []
    node.input.extend([found.x, *roi, constant])
    return name, [node], {constant: scales}


def _scales(
    graph: Graph, node: onnx.NodeProto, given: Mapping[str, Any]
) -> tuple[list[Fraction] | None, str]:
    """What each axis is multiplied by, None where that is not known; and the sizes that say so."""
    if "scales" in given:
        return _exactly(given["scales"]), ""
    inputs = [*node.input, "", "", ""][:4]
    scales = graph.constant(inputs[1 if graph.opset < _FIRST_WITH_ROI else 2])
    if scales is not None and scales.size:
        return _exactly(np.ravel(scales).tolist()), ""
    sizes, shape = graph.constant(inputs[3]), graph.type(inputs[0]).shape
    if sizes is None or shape is None or len(shape) != sizes.size:
        return None, ""
    pairs = [(int(m), n) for m, n in zip(np.ravel(sizes), shape, strict=True)]
    exact = [Fraction(m, n) for m, n in pairs if isinstance(n, int) and n > 0]
    return exact if len(exact) == len(pairs) else None, inputs[3]


def _exactly(numbers: Sequence[float]) -> list[Fraction] | None:
    """Floats as fractions, where they are numbers."""
    return [Fraction(n) for n in numbers] if all(map(math.isfinite, numbers)) else None


def _repeats(graph: Graph, given: Mapping[str, Any], factor: int) -> bool:
    """True where element i of an axis comes from element i // factor of x."""
    if graph.opset < _FIRST_WITH_ROI:  # no other way could be asked for
        return True
    position = _POSITIONS.get(given.get("coordinate_transformation_mode", b"half_pixel"))
    nearest = _NEAREST.get(given.get("nearest_mode", b"round_prefer_floor"))
    if position is None or nearest is None:
        return False
    return all(nearest(position(i, factor)) == 0 for i in range(factor))
