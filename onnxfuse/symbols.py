"""Sizes that ONNX's shape inference loses and the folds need, by name where not by number.

Inference gives every size behind a Conv a new name, even where the Conv keeps it, and knows nothing
behind a Reshape to a computed shape. Here one walk over the graph carries on what is certain: a
constant weight tells rank and channels, a size-keeping Conv keeps the name, and integers computed
from Shape nodes are followed as lists of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx
from onnx import TensorProto

from onnxfuse.graph import Dim, Graph, TensorType
from onnxfuse.messages import attributes, operator

Shape = tuple[Dim, ...]

_SAME_SHAPE = frozenset(
    {
        *("BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu"),
        *("HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LeakyRelu", "Log"),
        *("Mish", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt"),
        *("Swish", "Tanh", "ThresholdedRelu"),
    }
)
_SAME_CHANNELS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_BROADCASTING = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum"})
_PASSING = frozenset({"Identity", "Squeeze", "Unsqueeze"})
_MAX_INTEGERS = 16


def completed_types(graph: Graph) -> dict[str, TensorType]:
    """Types of the tensors about which more is certain than inference says."""
    return _Walk(graph).run()


class _Walk:
    """One pass in topological order; `lists` holds small integer tensors as sizes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found: dict[str, TensorType] = {}
        self.lists: dict[str, Shape] = {}

    def run(self) -> dict[str, TensorType]:
        for name, told in _told_by_weights(self.graph):
            if not self.graph.is_constant(name):
                self._learn(name, told)
        for node in self.graph.nodes:
            if not operator(node) or not node.output:
                continue
            follow = _LISTS.get(node.op_type)
            listed = None if follow is None else follow(self, node)
            if listed is not None and self.graph.type(node.output[0]).rank in (0, 1):
                self.lists[node.output[0]] = listed[:_MAX_INTEGERS]
            shape = self._shape(node)
            if shape is not None:
                elem_type = self.type(node.input[0]).elem_type
                self._learn(node.output[0], TensorType(elem_type, shape))
        return self.found

    def type(self, name: str) -> TensorType:
        return self.found.get(name) or self.graph.type(name)

    def _learn(self, name: str, told: TensorType) -> None:
        """Merges what a node tells into what is known; numbers win, then the names told."""
        known = self.type(name)
        if known.shape is None:
            self.found[name] = TensorType(known.elem_type or told.elem_type, told.shape)
        elif told.shape is not None and len(known.shape) == len(told.shape):
            merged = tuple(
                k if isinstance(k, int) or t is None else t
                for k, t in zip(known.shape, told.shape, strict=True)
            )
            learned = TensorType(known.elem_type or told.elem_type, merged)
            if learned != known:
                self.found[name] = learned

    # Shapes ------------------------------------------------------------------------------------

    def _shape(self, node: onnx.NodeProto) -> Shape | None:
        inputs = [self.type(name).shape for name in node.input if name]
        first = inputs[0] if inputs else None
        op = node.op_type
        if op in _BROADCASTING:
            return _broadcast(inputs)
        if first is None:
            return None
        if op in _SAME_SHAPE:
            return first
        if op in _SAME_CHANNELS:
            return (*first[:2], *(None,) * (len(first) - 2))
        if op == "Conv":
            return self._convolved(node, first)
        if op == "Transpose":
            order = _integers(node, "perm") or tuple(reversed(range(len(first))))
            if sorted(order) != list(range(len(first))):
                return None
            return tuple(first[axis] for axis in order)
        if op == "Reshape" and len(node.input) > 1:
            target = self._list(node.input[1])
            zero = getattr(attributes(node).get("allowzero"), "i", 0)
            return None if target is None or (zero and 0 in target) else _reshaped(first, target)
        return None

    def _convolved(self, node: onnx.NodeProto, shape: Shape) -> Shape | None:
        weight = self.graph.constant_shape(node.input[1])
        if weight is None or len(weight) != len(shape):
            return None
        rank = len(weight) - 2
        strides = _integers(node, "strides") or (1,) * rank
        dilations = _integers(node, "dilations") or (1,) * rank
        pads = _integers(node, "pads") or (0,) * (2 * rank)
        if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
            return None
        mode = getattr(attributes(node).get("auto_pad"), "s", b"NOTSET")
        same = mode in (b"SAME_UPPER", b"SAME_LOWER")
        if mode == b"VALID":
            pads = (0,) * (2 * rank)
        space = tuple(
            size
            if strides[axis] == 1
            and (same or pads[axis] + pads[rank + axis] == (weight[axis + 2] - 1) * dilations[axis])
            else None
            for axis, size in enumerate(shape[2:])
        )
        return (shape[0], weight[0], *space)

    # Lists of sizes ----------------------------------------------------------------------------

    def _list(self, name: str) -> Shape | None:
        """The values of an integer or of several in a row: constants, and sizes as they are."""
        if name in self.lists:
            return self.lists[name]
        shape = self.graph.constant_shape(name)
        if shape is None or len(shape) > 1 or math.prod(shape) > _MAX_INTEGERS:
            return None
        value = self.graph.constant(name)
        if value is None or value.dtype.kind not in "iu":
            return None
        return tuple(int(v) for v in value.ravel())

    def _sizes(self, node: onnx.NodeProto) -> Shape | None:
        shape = self.type(node.input[0]).shape
        given = attributes(node)
        start, end = getattr(given.get("start"), "i", 0), getattr(given.get("end"), "i", None)
        return None if shape is None else shape[start:end]

    def _passed(self, node: onnx.NodeProto) -> Shape | None:
        return self._list(node.input[0])

    def _cast(self, node: onnx.NodeProto) -> Shape | None:
        to = getattr(attributes(node).get("to"), "i", 0)
        return self._list(node.input[0]) if to in (TensorProto.INT32, TensorProto.INT64) else None

    def _joined(self, node: onnx.NodeProto) -> Shape | None:
        parts = [self._list(name) for name in node.input]
        known = [part for part in parts if part is not None]
        return tuple(d for part in known for d in part) if len(known) == len(parts) else None

    def _gathered(self, node: onnx.NodeProto) -> Shape | None:
        listed, index = self._list(node.input[0]), self._list(node.input[1])
        if listed is None or index is None:
            return None
        chosen = [i for i in index if isinstance(i, int) and -len(listed) <= i < len(listed)]
        return tuple(listed[i] for i in chosen) if len(chosen) == len(index) else None

    def _sliced(self, node: onnx.NodeProto) -> Shape | None:
        listed = self._list(node.input[0])
        bounds = [self._list(name) for name in node.input[1:3]]
        if listed is None or len(bounds) < 2 or len(node.input) > 4:
            return None
        numbers = [b[0] for b in bounds if b is not None and len(b) == 1 and isinstance(b[0], int)]
        return listed[numbers[0] : numbers[1]] if len(numbers) == 2 else None

    def _reshaped_list(self, node: onnx.NodeProto) -> Shape | None:
        return self._list(node.input[0]) if self.type(node.input[0]).rank in (0, 1) else None


_LISTS: Mapping[str, Callable[[_Walk, onnx.NodeProto], Shape | None]] = {
    "Cast": _Walk._cast,
    "Concat": _Walk._joined,
    "Gather": _Walk._gathered,
    "Reshape": _Walk._reshaped_list,
    "Shape": _Walk._sizes,
    "Slice": _Walk._sliced,
    **dict.fromkeys(_PASSING, _Walk._passed),
}


def _told_by_weights(graph: Graph) -> Iterator[tuple[str, TensorType]]:
    for node in graph.nodes:
        if operator(node) not in ("Conv", "ConvTranspose") or len(node.input) < 2:
            continue
        weight = graph.constant_shape(node.input[1])
        if weight is None or len(weight) < 3:
            continue
        group = getattr(attributes(node).get("group"), "i", 1)
        inputs, outputs = weight[1] * group, weight[0]
        if node.op_type == "ConvTranspose":
            inputs, outputs = outputs, inputs
        kind, space = graph.constant_type(node.input[1]), (None,) * (len(weight) - 2)
        yield node.input[0], TensorType(kind, (None, inputs, *space))
        yield node.output[0], TensorType(kind, (None, outputs, *space))


def _integers(node: onnx.NodeProto, name: str) -> tuple[int, ...] | None:
    found = attributes(node).get(name)
    return None if found is None else tuple(found.ints)


def _reshaped(shape: Shape, target: Shape) -> Shape | None:
    """The result of a Reshape; 0 copies a size, and -1 is what is left over after cancelling."""
    sizes = [shape[i] if d == 0 and i < len(shape) else d for i, d in enumerate(target)]
    if -1 not in sizes:
        return tuple(sizes)
    left = [d for d in shape if not isinstance(d, int)]
    for size in sizes:
        if not isinstance(size, int):
            if size not in left:
                return None
            left.remove(size)
    number = math.prod(d for d in shape if isinstance(d, int))
    divisor = math.prod(d for d in sizes if isinstance(d, int) and d != -1)
    if None in left or not divisor or number % divisor or len(left) > 1:
        return None
    rest: Dim = number // divisor
    if left:
        if rest != 1:
            return None
        rest = left[0]
    return tuple(rest if d == -1 else d for d in sizes)


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    known = [s for s in shapes if s is not None]
    if not known or len(known) < len(shapes):
        return None
    rank = max(map(len, known))
    columns = zip(*((1,) * (rank - len(s)) + s for s in known), strict=True)
    return tuple(_broadcast_size(set(column)) for column in columns)


def _broadcast_size(sizes: set[Dim]) -> Dim:
    wide = sizes - {1}
    if not wide:
        return 1
    numbers = [d for d in wide if isinstance(d, int)]
    if numbers:
        return numbers[0]
    return next(iter(wide)) if len(wide) == 1 else None
