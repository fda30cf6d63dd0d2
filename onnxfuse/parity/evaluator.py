"""Whole models in float64: `onnxfuse.reference`, and onnx's own for what that does not cover."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse import io
from onnxfuse.errors import OnnxfuseError
from onnxfuse.io.order import captured
from onnxfuse.messages import bodies
from onnxfuse.parity.fallback import Fallback
from onnxfuse.parity.inlining import inlined
from onnxfuse.parity.rounding import structure
from onnxfuse.reference import OLDEST_OPSET, UnsupportedOperator, evaluate
from onnxfuse.reference.call import widen
from onnxfuse.shapes import default_opset

Value: TypeAlias = tuple[Any, ...]
"""A tensor, and the same tensor with constants moved, once for each draw; one element where moving
makes no difference. Sequences are lists."""

Move: TypeAlias = Callable[[Any, str, int], Any]
"""A constant in its own type, its name, and a draw, from 1 on, to what it is there in float64."""

Read: TypeAlias = Mapping[str, Value]
"""What a node reads, by name."""

Watch: TypeAlias = Callable[[onnx.NodeProto, Read, str, Value], Value]
"""Is shown every tensor as a node makes it, and says what the nodes behind it are given."""

_RANDOM = frozenset(
    {
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    }
)


_STEPS = frozenset(
    {
        *("ArgMax", "ArgMin", "Ceil", "ConvInteger", "DynamicQuantizeLinear", "Equal", "Floor"),
        *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "MatMulInteger", "Mod", "NonZero"),
        *("NonMaxSuppression", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Round", "Sign"),
        "TopK",
    }
)


class Unevaluated(OnnxfuseError):  # noqa: N818 - named for what it is about
    """A model, or what it makes of its inputs, that cannot be evaluated in float64."""


class Evaluator:
    """One model.

    Attributes:
        graph: Its graph, local functions inlined.
        outputs: Names of its outputs.
    """

    def __init__(self, source: io.Source) -> None:
        """Prepares a model.

        Raises:
            Unevaluated: Its opset, or what it holds, is not covered.
        """
        model = source.model
        if model.functions:
            model = inlined(model)
        self.graph = model.graph
        self.opset = default_opset(model)
        self._nodes = list(self.graph.node)
        self._load = source.load
        self._fallback = Fallback(model)
        self._constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self._fixed = structure(self.graph)
        self._reads = [_reads(node) for node in self._nodes]
        self._last = {name: i for i, read in enumerate(self._reads) for name in read}
        self.outputs = [value.name for value in self.graph.output]
        if self.graph.sparse_initializer:
            raise Unevaluated("sparse initializers are not covered")
        if self.opset and self.opset < OLDEST_OPSET:
            raise Unevaluated(f"opset {self.opset} is older than {OLDEST_OPSET}")

    def run(
        self,
        feeds: Mapping[str, Any],
        *,
        draws: int = 0,
        move: Move | None = None,
        watch: Watch | None = None,
        begin: Callable[[str, Any], Value] | None = None,
    ) -> list[Value]:
        """The outputs, floating tensors of any width as float64.

        Args:
            feeds: The inputs, by name.
            draws: How often everything is evaluated with constants moved, besides.
            move: What a constant is in a draw; default: the same.
            watch: Sees and replaces tensors as they are made.
            begin: What an input is, and in each draw; default: the same.

        Raises:
            Unevaluated: A node cannot be evaluated.
        """
        known: dict[str, Value] = {"": (None,)}
        for name, value in feeds.items():
            wide = _widened(value)
            known[name] = begin(name, wide) if begin else (wide,)
        known |= {n: self._constant(n, draws, move) for n in self.outputs if n in self._constants}
        with np.errstate(all="ignore"):
            for index, node in enumerate(self._nodes):
                read = {
                    name: known[name] if name in known else self._constant(name, draws, move)
                    for name in self._reads[index]
                }
                for name, value in zip(
                    node.output, self._made(index, read, draws, move), strict=False
                ):
                    known[name] = watch(node, read, name, value) if watch and name else value
                for name in (*self._reads[index], *node.output):
                    if self._last.get(name, -1) <= index and name not in self.outputs:
                        known.pop(name, None)
        return [known[name] for name in self.outputs]

    def _constant(self, name: str, draws: int, move: Move | None) -> Value:
        if name not in self._constants:
            raise Unevaluated(f"nothing makes tensor {name!r}")
        value = self._load(self._constants[name])
        return self._moved(value, name, draws, move)

    def _moved(self, value: Any, name: str, draws: int, move: Move | None) -> Value:
        if move is None or not draws or name in self._fixed or not _is_float(value):
            return (_widened(value),)
        return (_widened(value), *(move(value, name, draw) for draw in range(1, draws + 1)))

    def _made(self, index: int, read: Read, draws: int, move: Move | None) -> Iterator[Value]:
        """The values of a node's outputs."""
        node = self._nodes[index]
        if node.op_type == "Constant" and move is not None:
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            if tensor is not None:
                yield self._moved(numpy_helper.to_array(tensor), node.output[0], draws, move)
                return
        alike = all(len(value) == 1 for value in read.values())
        results = [self._evaluated(index, {name: value[0] for name, value in read.items()})]
        for draw in range(1, 1 if alike else draws + 1):
            inputs = {n: value[draw] if len(value) > 1 else value[0] for n, value in read.items()}
            try:
                moved = self._evaluated(index, inputs)
            except Unevaluated:  # moved indices or sizes may not fit together
                moved = results[0]
            results.append(moved)
        for position in range(len(results[0])):
            yield tuple(result[position] for result in results)

    def _evaluated(self, index: int, read: Mapping[str, Any]) -> list[Any]:
        node = self._nodes[index]
        if not any(isinstance(value, list) for value in read.values()):
            try:
                made = evaluate([node], {n: v for n, v in read.items() if n}, self.opset)
                return [made.get(name) for name in node.output]
            except (UnsupportedOperator, ArithmeticError, LookupError, ValueError, TypeError):
                pass  # onnx's evaluator covers more, and says what is wrong
        try:
            return [_widened(value) for value in self._fallback.run(index, node, read)]
        except Exception as error:  # it raises whatever numpy and its operators do
            label = node.name or ", ".join(node.output)
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise Unevaluated(f"{node.op_type} node {label!r}: {said}") from error


def random_operator(model: onnx.ModelProto) -> str | None:
    """An operator of a model, its bodies and functions, that draws random numbers; or None."""
    return next((str(n.op_type) for n in _all_nodes(model) if n.op_type in _RANDOM), None)


def has_steps(model: onnx.ModelProto) -> bool:
    """True where an operator turns small differences of floats into whole steps."""
    return uses(model, _STEPS)


def uses(model: onnx.ModelProto, operators: Collection[str]) -> bool:
    """True where a node of the model, its bodies or functions is one of these operators."""
    return any(node.op_type in operators for node in _all_nodes(model))


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    pending = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        pending += [inner for body in bodies(node) for inner in body.node]


def _reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """What a node reads: its inputs, and what its bodies take from around it."""
    around = [name for body in bodies(node) for name in captured(body)]
    return tuple(dict.fromkeys((*node.input, *around)))


def _widened(value: Any) -> Any:
    if isinstance(value, list):
        return [_widened(item) for item in value]
    return widen(value) if isinstance(value, np.ndarray) else value


def _is_float(value: Any) -> bool:
    return bool(value.dtype.kind == "f" or value.dtype.name == "bfloat16")
