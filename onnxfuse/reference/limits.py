"""How many elements a node makes, where its inputs' values or broadcasting can make it any number.

A model of a few bytes can ask for tensors of terabytes; such a node is not evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from onnxfuse.reference import resizing
from onnxfuse.reference.call import Call, Tensor

MOST_ELEMENTS = 1 << 28


def check_size(call: Call) -> None:
    """Checks that a node makes no more than MOST_ELEMENTS elements, as far as it can be told.

    Raises:
        UnsupportedOperator: It makes more.
        ValueError: Its inputs do not broadcast.
    """
    given = [x for x in call.inputs if x is not None]
    count = _COUNTS.get(call.node.op_type, _broadcast)
    if max([x.size for x in given], default=0) > MOST_ELEMENTS or count(call) > MOST_ELEMENTS:
        raise call.unsupported(f"it makes more than {MOST_ELEMENTS:,} elements")


def _broadcast(call: Call) -> int:
    if call.node.op_type not in _BROADCASTING:
        return 0
    return math.prod(np.broadcast_shapes(*(x.shape for x in call.inputs)))


def _tiled(call: Call) -> int:
    return math.prod([call.inputs[0].size, *map(int, call.inputs[1].ravel())])


def _padded(call: Call) -> int:
    x = call.inputs[0]
    pads = call.integers("pads", 1) or []
    axes = call.integers("axes", 3)
    sizes = list(x.shape)
    for i, axis in enumerate(range(x.ndim) if axes is None else axes):
        sizes[axis] += max(pads[i], 0) + max(pads[i + len(pads) // 2], 0)
    return math.prod(sizes)


def _windowed(call: Call) -> int:
    pads = [max(n, 0) for n in call.attributes.get("pads", ())]
    shape = call.inputs[0].shape
    added = [p + q for p, q in zip(pads, pads[len(pads) // 2 :], strict=False)]
    return math.prod((*shape[:2], *(n + m for n, m in zip(shape[2:], added, strict=False))))


def _spread(call: Call) -> int:
    x, weight = call.inputs[:2]
    sizes, kernel = x.shape[2:], weight.shape[2:]
    lists = [call.attributes.get(name) for name in ("strides", "dilations", "output_padding")]
    strides, dilations, added = (given or [1] * len(kernel) for given in lists)
    axes = zip(sizes, kernel, strides, dilations, added, strict=False)
    full = ((n - 1) * s + (k - 1) * d + 1 + e for n, k, s, d, e in axes)
    return math.prod((x.shape[0], weight.shape[1], call.attributes.get("group", 1), *full))


def _ranged(call: Call) -> int:
    start, limit, delta = (x.item() for x in call.inputs)
    steps = (limit - start) / delta if delta else 0
    return math.ceil(steps) if math.isfinite(steps) else 0


def _gathered(call: Call) -> int:
    x, indices = call.inputs
    size = x.shape[call.attributes.get("axis", 0)]
    return int(x.size // size * indices.size) if size else 0


def _multiplied(call: Call) -> int:
    return _product(*call.inputs[:2])


def _multiplied_codes(call: Call) -> int:
    return _product(call.inputs[0], call.inputs[3])


def _product(left: Tensor, right: Tensor) -> int:
    if min(left.ndim, right.ndim) < 2:
        return 0
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    return math.prod((*batch, left.shape[-2], right.shape[-1]))


_BROADCASTING = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"}
    | {"Mean", "Min", "Mod", "Mul", "Or", "Sub", "Sum", "Where"}
)
_COUNTS: Mapping[str, Callable[[Call], int]] = {
    "AveragePool": _windowed,
    "Conv": _windowed,
    "ConvInteger": _windowed,
    "ConvTranspose": _spread,
    "Gather": _gathered,
    "MatMul": _multiplied,
    "MatMulInteger": _multiplied,
    "MaxPool": _windowed,
    "Pad": _padded,
    "QLinearConv": _windowed,
    "QLinearMatMul": _multiplied_codes,
    "Range": _ranged,
    "Resize": resizing.count,
    "Tile": _tiled,
    "Upsample": resizing.count,
}
