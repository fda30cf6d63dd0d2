"""Elementwise nodes as functions of one tensor: from nodes to `Polynomial`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxfuse.graph import FLOAT_TYPES, Graph
from onnxfuse.messages import attributes, operator
from onnxfuse.rewrites import polynomial
from onnxfuse.rewrites.polynomial import Polynomial, X

_SQRT_HALF = math.sqrt(0.5)
_GELU_TANH = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class _Call:
    """A node, its inputs as polynomials; None for those left out."""

    node: onnx.NodeProto
    inputs: tuple[Polynomial | None, ...]
    opset: int

    @cached_property
    def _attributes(self) -> dict[str, onnx.AttributeProto]:
        return attributes(self.node)

    def real(self, name: str, default: float) -> float:
        found = self._attributes.get(name)
        return default if found is None else float(found.f)

    def text(self, name: str) -> str:
        found = self._attributes.get(name)
        return "" if found is None else found.s.decode("utf-8", "replace")

    def number(self, index: int, default: float) -> float | None:
        """A constant input; None when it is computed."""
        given = self.inputs[index] if index < len(self.inputs) else None
        return default if given is None else given.number

    @property
    def x(self) -> Polynomial:
        return self._at(0)

    @property
    def both(self) -> tuple[Polynomial, Polynomial]:
        return self._at(0), self._at(1)

    def _at(self, index: int) -> Polynomial:
        value = self.inputs[index]
        assert value is not None
        return value


def _product(call: _Call) -> Polynomial:
    a, b = call.both
    return a * b


def _quotient(call: _Call) -> Polynomial | None:
    a, b = call.both
    inverse = polynomial.reciprocal(b)
    return None if inverse is None else a * inverse


def _clip(call: _Call) -> Polynomial | None:
    low, high = -math.inf, math.inf
    if call.opset < 11:
        low, high = call.real("min", low), call.real("max", high)
    least, greatest = call.number(1, low), call.number(2, high)
    if least is None or greatest is None:
        return None
    return polynomial.clamp(call.x, least, greatest)


def _extreme(choose: Callable[[Polynomial, Polynomial], Polynomial]) -> _Rule:
    def rule(call: _Call) -> Polynomial | None:
        first, *others = call.inputs
        for other in others:
            assert first is not None
            assert other is not None
            first = choose(first, other)
        return first

    return rule


def _power(call: _Call) -> Polynomial | None:
    exponent = call.number(1, 1.0)
    return None if exponent is None else polynomial.power(call.x, exponent)


def _function(name: str) -> _Rule:
    return lambda call: polynomial.applied(name, call.x)


def _relu(call: _Call) -> Polynomial:
    return polynomial.clamp(call.x, 0.0, math.inf)


def _leaky_relu(call: _Call) -> Polynomial:
    slope = call.real("alpha", 0.01)
    return call.x.times(slope) + _relu(call).times(1.0 - slope)


def _hard_sigmoid(call: _Call) -> Polynomial:
    alpha, beta = call.real("alpha", 0.2), call.real("beta", 0.5)
    return polynomial.clamp(call.x.times(alpha).plus(beta), 0.0, 1.0)


def _hard_swish(call: _Call) -> Polynomial:
    return call.x * polynomial.clamp(call.x.times(1 / 6).plus(0.5), 0.0, 1.0)


def _gelu(call: _Call) -> Polynomial:
    return gelu(call.x, call.text("approximate") == "tanh")


def gelu(x: Polynomial, by_tanh: bool) -> Polynomial:
    """GELU of x: with erf, or by the usual approximation with tanh."""
    if by_tanh:
        scale, cubic = _GELU_TANH
        gate = polynomial.applied("tanh", (x + (x * x * x).times(cubic)).times(scale))
    else:
        gate = polynomial.applied("erf", x.times(_SQRT_HALF))
    return (x * gate.plus(1.0)).times(0.5)


def mish(x: Polynomial) -> Polynomial:
    """Mish of x."""
    return x * polynomial.applied("tanh", polynomial.applied("softplus", x))


_Rule = Callable[[_Call], Polynomial | None]


@dataclass(frozen=True)
class Operator:
    """How an elementwise operator makes a polynomial of polynomials.

    Attributes:
        rule: The function; it gives None where there is none.
        inputs: How many inputs it takes, at least and at most; all of the former are there.
    """

    rule: _Rule
    inputs: tuple[int, int] = (1, 1)


_MOST_EXTREMES = 4
_TWO, _SOME = (2, 2), (1, _MOST_EXTREMES)

OPERATORS: Mapping[str, Operator] = {
    "Add": Operator(lambda call: call.both[0] + call.both[1], _TWO),
    "Clip": Operator(_clip, (1, 3)),
    "Div": Operator(_quotient, _TWO),
    "Erf": Operator(_function("erf")),
    "Exp": Operator(_function("exp")),
    "Gelu": Operator(_gelu),
    "HardSigmoid": Operator(_hard_sigmoid),
    "HardSwish": Operator(_hard_swish),
    "LeakyRelu": Operator(_leaky_relu),
    "Log": Operator(lambda call: polynomial.logarithm(call.x)),
    "Max": Operator(_extreme(polynomial.maximum), _SOME),
    "Min": Operator(_extreme(polynomial.minimum), _SOME),
    "Mish": Operator(lambda call: mish(call.x)),
    "Mul": Operator(_product, _TWO),
    "Neg": Operator(lambda call: call.x.times(-1.0)),
    "Pow": Operator(_power, _TWO),
    "Reciprocal": Operator(lambda call: polynomial.reciprocal(call.x)),
    "Relu": Operator(_relu),
    "Sigmoid": Operator(_function("sigmoid")),
    "Softplus": Operator(_function("softplus")),
    "Sub": Operator(lambda call: call.both[0] - call.both[1], _TWO),
    "Tanh": Operator(_function("tanh")),
}
"""Elementwise operators of one tensor and constants."""

_HIGHEST_RANK = 8  # of a constant


def is_pointwise(graph: Graph, index: int) -> bool:
    """True for a node that makes a number of one number, elsewhere equal ones: no broadcasting."""
    node = graph.nodes[index]
    known = OPERATORS.get(operator(node))
    data = graph.data(index)
    if known is None or len(node.output) != 1:
        return False
    least, most = known.inputs
    given = [name for name in node.input if name]
    present = len(given) if node.op_type != "Clip" else len(node.input)
    if not least <= present <= most or present != len(node.input):
        return False
    if not all(name in data or graph.is_constant(name) for name in given):
        return False  # it reads integers that are computed
    lowest = max((graph.type(name).rank or 0 for name in data), default=0)
    return all(
        _is_number(graph, name, min(lowest, _HIGHEST_RANK))
        for name in given
        if graph.is_constant(name)
    )


def _is_number(graph: Graph, name: str, rank: int) -> bool:
    """True for one finite number, in a tensor of that rank at most."""
    shape = graph.constant_shape(name) or ()
    if math.prod(shape) != 1 or len(shape) > rank:
        return False
    value = np.asarray(graph.constant(name))
    return value.dtype.kind in "fiu" or graph.type(name).elem_type in FLOAT_TYPES


@dataclass
class Functions:
    """Tensors as functions of one of them.

    Attributes:
        graph: The graph.
        base: The name of the tensor.
    """

    graph: Graph
    base: str
    _known: dict[str, Polynomial | None] = field(default_factory=dict)

    def of(self, name: str) -> Polynomial | None:
        """A tensor as a function of the base; None when it is none that can be written down.

        Between them are pointwise nodes alone.
        """
        if name == self.base:
            return X
        if name not in self._known:
            self._known[name] = self._found(name)
        return self._known[name]

    def _found(self, name: str) -> Polynomial | None:
        graph = self.graph
        if graph.is_constant(name):
            number = float(np.asarray(graph.constant(name)).reshape(()))
            return polynomial.constant(number) if math.isfinite(number) else None
        node = graph.nodes[graph.producers[name]]
        inputs = [self.of(given) if given else None for given in node.input]
        if any(given and found is None for given, found in zip(node.input, inputs, strict=True)):
            return None
        try:
            return OPERATORS[node.op_type].rule(_Call(node, tuple(inputs), graph.opset))
        except (polynomial.TooLarge, OverflowError):
            return None
