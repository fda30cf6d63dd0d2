"""Scales and shifts along one axis, and what becomes of them where they move behind a node.

    P(scale * x + shift) = scale' * P(x) + shift'

P may be a node that works on every channel by itself and

1. doubles its output with its input, where the scale is positive and there is no shift (Relu,
   LeakyRelu, PRelu), or only without a shift (Mul by a tensor, Div by one);
2. takes a maximum, where the scale is positive (MaxPool, GlobalMaxPool);
3. takes a mean of as much as the window covers (AveragePool, ReduceMean), or repeats (Resize);
4. puts values elsewhere and keeps them apart (Concat, Transpose, Reshape, Flatten, Squeeze, ..).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxfuse.affine import AffineConv, Array, Refusal, identity
from onnxfuse.graph import FLOAT_TYPES, Dim, Graph
from onnxfuse.lift import RULES, Site, View, protected
from onnxfuse.messages import operator
from onnxfuse.rewrites.upsampling import OPERATORS as RESIZING
from onnxfuse.rewrites.upsampling import repeats

_LINES = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Neg", "Sub"})
_UNPADDED, _PADDED = ("NOTSET", "VALID"), ("SAME_UPPER", "SAME_LOWER")
_CHANNELS = 1  # the axis of those that see images
_LONGEST = 1 << 16  # channels


@dataclass(frozen=True, eq=False)
class Line:
    """y = scale * x + shift, for every position along one axis.

    Attributes:
        scale: (C,), float64.
        shift: (C,), float64.
        axis: The axis of the channels.
        rank: Number of dimensions of x and y.
    """

    scale: Array
    shift: Array
    axis: int
    rank: int

    @property
    def is_positive(self) -> bool:
        """True where it keeps the order of numbers."""
        return bool(np.all(self.scale > 0))

    @property
    def is_scale(self) -> bool:
        """True where it shifts nothing."""
        return not np.any(self.shift)

    def is_laid_out_like(self, other: Line) -> bool:
        """True where both work on tensors whose channels lie alike."""
        mine, others = ((x.axis, x.rank, len(x.scale)) for x in (self, other))
        return mine == others


def line(graph: Graph, index: int) -> Line | None:
    """The node as a line of its only computed input, or None."""
    node = graph.nodes[index]
    if operator(node) not in _LINES or len(graph.data(index)) != 1:
        return None
    kind = graph.type(node.output[0])
    rank = kind.rank
    if not rank or kind.elem_type not in FLOAT_TYPES or protected(graph, node) is not None:
        return None
    (data,) = graph.data(index)
    views = [View.image(rank)] if rank > 1 else []
    if node.op_type != "BatchNormalization":
        views += [View.matrix(axis, rank) for axis in reversed(range(rank))]
    for view in views:
        site = Site(graph, node, node.output[0], view)
        channels = site.channels(data)
        step = RULES[node.op_type](site)
        if channels is None or channels > _LONGEST or isinstance(step, Refusal):
            continue
        whole = identity(channels, len(view.spatial))
        term = step.combine([whole] * len(step.inputs), None)
        if isinstance(term, AffineConv) and term.is_channelwise and term.out_channels == channels:
            return Line(term.weight.reshape(-1), term.bias, view.axis, rank)
    return None


@dataclass(frozen=True)
class _Way:
    """A node that a line may move behind.

    Attributes:
        site: The node; the view is that of an image.
        name: The tensor that the line makes.
        line: The line.
    """

    site: Site
    name: str
    line: Line

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.site.node.input)

    @property
    def is_first_alone(self) -> bool:
        return self.name not in self.inputs[1:]

    @property
    def is_image(self) -> bool:
        return self.line.axis == _CHANNELS


def behind(graph: Graph, index: int, name: str, given: Line) -> Line | None:
    """The line behind a node that does what one in front of it does; None where there is none.

    Args:
        graph: The graph.
        index: The node's.
        name: The tensor in front of it that the line makes.
        given: The line.
    """
    node = graph.nodes[index]
    rule = _RULES.get(operator(node))
    if rule is None or len(node.output) != 1:
        return None
    return rule(_Way(Site(graph, node, node.output[0], View.image(given.rank)), name, given))


# Rules -------------------------------------------------------------------------------------------


def _homogeneous(way: _Way) -> Line | None:
    """Positive factors go through: f(a x) = a f(x)."""
    fits = way.is_first_alone and way.line.is_positive and way.line.is_scale
    return way.line if fits else None


def _linear(way: _Way) -> Line | None:
    """Mul and Div by another tensor: any factor goes through, where nothing is broadcast to it."""
    others = [name for name in way.inputs if name != way.name]
    if len(others) != 1 or way.site.graph.is_constant(others[0]) or not way.line.is_scale:
        return None
    if way.site.node.op_type == "Div" and way.inputs[0] != way.name:
        return None
    mine, other = way.site.type(way.name).shape or (), way.site.type(others[0]).shape
    if other is None or len(other) > len(mine):
        return None
    aligned = (1,) * (len(mine) - len(other)) + other
    fits = all(n == 1 or (n is not None and n == m) for n, m in zip(aligned, mine, strict=True))
    return way.line if fits else None


def _maximum(way: _Way) -> Line | None:
    """The largest of some numbers; padding is smaller than all."""
    return way.line if _has_no_empty_windows(way) and way.line.is_positive else None


def _mean(way: _Way) -> Line | None:
    """The mean of a window; where zeros of the padding count, shifts do not go through."""
    site = way.site
    pads = site.integer_list("pads")
    automatic = site.text("auto_pad", "NOTSET") in _PADDED
    counts = bool(site.integer("count_include_pad", 0)) and (automatic or any(pads or ()))
    plain = _has_no_empty_windows(way)
    return way.line if plain and (way.line.is_scale or not counts) else None


def _has_no_empty_windows(way: _Way) -> bool:
    """True where every window of a pooling covers some pixel of an image of any size.

    With padding that a runtime takes, which is smaller than the window.
    """
    site = way.site
    if not way.is_image or site.integer("ceil_mode", 0):
        return False
    mode, pads = site.text("auto_pad", "NOTSET"), site.integer_list("pads") or ()
    if mode not in (*_UNPADDED, *_PADDED):
        return False
    padded = any(pads) or mode in _PADDED
    gaps = set(site.integer_list("dilations") or (1,)) != {1}
    return not (gaps and padded)


def _whole(way: _Way) -> Line | None:
    return way.line if way.is_image else None


def _reduced(way: _Way) -> Line | None:
    """ReduceMean over axes other than the channels'."""
    site, given = way.site, way.line
    axes = site.integer_list("axes") if len(way.inputs) < 2 else site.integers(way.inputs[1])
    found = site.axes(axes) if axes else None
    if not found or given.axis in found:
        return None
    if site.integer("keepdims", 1):
        return given
    gone = sum(axis < given.axis for axis in found)
    return replace(given, axis=given.axis - gone, rank=given.rank - len(found))


def _resized(way: _Way) -> Line | None:
    index = way.site.graph.producers[way.site.output]
    return way.line if way.is_image and repeats(way.site.graph, index) else None


def _joined(way: _Way) -> Line | None:
    """Concat along the channels: the others keep what they are."""
    site, given = way.site, way.line
    axes = site.axes([site.integer("axis", 1)])
    if axes != (given.axis,):
        return None
    scales, shifts = [], []
    for name in way.inputs:
        shape = site.type(name).shape
        count = shape[given.axis] if shape is not None and len(shape) == given.rank else None
        if not isinstance(count, int):
            return None
        scales.append(given.scale if name == way.name else np.ones(count))
        shifts.append(given.shift if name == way.name else np.zeros(count))
    joined = replace(given, scale=np.concatenate(scales), shift=np.concatenate(shifts))
    return joined if len(joined.scale) <= _LONGEST else None


def _turned(way: _Way) -> Line | None:
    given = way.line
    order = way.site.integer_list("perm") or tuple(reversed(range(given.rank)))
    if given.axis not in order:
        return None  # ill-formed
    return replace(given, axis=order.index(given.axis))


def _reshaped(way: _Way) -> Line | None:
    """Values stay in their order; channels as they are, or each repeated for what follows it."""
    given = way.line
    before, after = way.site.type(way.name).shape or (), way.site.type(way.site.output).shape
    if len(before) != given.rank or after is None:
        return None
    before, after = _same_batch(way, before, after)
    channels, rest = before[given.axis], before[given.axis + 1 :]
    front = _product(before[: given.axis])
    for axis, count in enumerate(after):
        if front is None or _product(after[:axis]) != front or not isinstance(count, int):
            continue
        if count == channels != 1:
            return replace(given, axis=axis, rank=len(after))
        follow = _product(rest)
        if follow is not None and not follow[1] and count == len(given.scale) * follow[0]:
            scale, shift = (np.repeat(a, follow[0]) for a in (given.scale, given.shift))
            if len(scale) <= _LONGEST:
                return Line(scale, shift, axis, len(after))
    return None


def _same_batch(
    way: _Way, before: tuple[Dim, ...], after: tuple[Dim, ...]
) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """The shapes, with one word for the first of both where the operator says they are equal."""
    site = way.site
    target = site.integers(way.inputs[1]) if len(way.inputs) > 1 else None
    copied = target is not None and target[:1] == (0,) and not site.integer("allowzero", 0)
    flat = site.node.op_type == "Flatten" and site.integer("axis", 1) == 1
    if before and after and (flat or (site.node.op_type == "Reshape" and copied)):
        return ("first of both", *before[1:]), ("first of both", *after[1:])
    return before, after


def _product(dims: tuple[Dim, ...]) -> tuple[int, tuple[str, ...]] | None:
    """The product of some sizes: of the numbers, and the words in it; None where one is unknown."""
    if None in dims:
        return None
    words = sorted(d for d in dims if isinstance(d, str))
    return math.prod(d for d in dims if isinstance(d, int)), tuple(words)


_RULES: Mapping[str, Callable[[_Way], Line | None]] = {
    "AveragePool": _mean,
    "Concat": _joined,
    "Div": _linear,
    "Flatten": _reshaped,
    "GlobalAveragePool": _whole,
    "GlobalMaxPool": _maximum,
    "LeakyRelu": _homogeneous,
    "MaxPool": _maximum,
    "Mul": _linear,
    "PRelu": _homogeneous,
    "ReduceMean": _reduced,
    "Relu": _homogeneous,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "Transpose": _turned,
    "Unsqueeze": _reshaped,
    **dict.fromkeys(sorted(RESIZING), _resized),
}

PASSED = frozenset(_RULES)
"""Operators that a line may move behind."""
OPERATORS = _LINES | PASSED
"""Operators that take part."""
