"""What two models mean: both in float64, tensor by tensor, each given the other's inputs.

Where a tensor of the second model has its counterpart in the first, it is computed from the first
model's values of the tensors before it. What is left is the rounding of the constants between
them, and that is measured: they are moved by a few roundings, in both models, several times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnxfuse.parity.evaluator import Evaluator, Read, Value
from onnxfuse.parity.interface import Interface
from onnxfuse.parity.rounding import ROUNDINGS, move, roundoff
from onnxfuse.parity.spread import Excess, Spread, excess, flips, gap, unequal

DRAWS = 2
_FLOOR = 2.0**-23
"""Relative to the whole tensor: attributes of operators are float32, twice its roundoff."""
_FLOOR_DOUBLE = 2.0**-44
"""The same in a model of float64: what its own evaluation rounds."""

_ALMOST = 1e-2
"""Relative to the whole tensor: a smaller difference is one of value, not of meaning."""

_ALMOST_UNNAMED = 1e-4
"""The same for tensors that were paired by their values, which may be nearly the same by chance."""


@dataclass
class Compared:
    """Two models in float64 for one set of inputs.

    Attributes:
        outputs: By position of an output in the first, how far the second is off.
        apart: By name of a tensor of the second model, in order, where that is not explained: how
            far, of those whose difference is small; no tool gives a tensor the name of another that
            it almost equals, so these are errors even where later nodes hide them.
        other: The same of tensors that differ altogether. Where the outputs agree, they only have
            names that the first model uses for something else.
        agreeing: The same of those that agree.
    """

    outputs: list[Excess] = field(default_factory=list)
    apart: dict[str, Excess] = field(default_factory=dict)
    other: dict[str, Excess] = field(default_factory=dict)
    agreeing: dict[str, Excess] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """True when the roundings of constants explain all differences."""
        return not self.apart and all(output.ratio <= 1 for output in self.outputs)


def roundings(value: Any, name: str, draw: int) -> Any:
    """A constant moved by `ROUNDINGS` roundings of its own type."""
    return move(value, name, draw, ROUNDINGS * roundoff(value.dtype.name))


def compare(
    first: Evaluator,
    second: Evaluator,
    interface: Interface,
    feeds: Mapping[str, Any],
    pairs: Mapping[str, str],
    *,
    double: bool = False,
    mended: str = "",
) -> Compared:
    """Evaluates both models and compares them.

    Args:
        first: The model that is right.
        second: The model in question.
        interface: Which of their inputs and outputs is which.
        feeds: Inputs, by the first's names.
        pairs: Name in the second model to name in the first, of tensors that should be equal.
        double: Whether the models compute in float64.
        mended: A tensor of the second model that gets its counterpart's value though it differs.

    Raises:
        Unevaluated: One of the two cannot be evaluated.
    """
    states = _First(set(pairs.values()))
    truth = first.run(feeds, draws=DRAWS, move=roundings, watch=states.watch)
    result = Compared()
    floor = _FLOOR_DOUBLE if double else _FLOOR
    follower = _Second(pairs, states, floor, mended, result)
    ends = second.run(interface.renamed(feeds), draws=DRAWS, move=roundings, watch=follower.watch)
    values = dict(zip(first.outputs, truth, strict=True))
    made = dict(zip(second.outputs, ends, strict=True))
    for ours, theirs in interface.outputs:
        if theirs in follower.found and pairs.get(theirs) == ours:
            result.outputs.append(follower.found[theirs])
            continue
        noise = states.noise[ours] if ours in states.noise else _noise(values[ours])
        computed = ours in states.moved or len(values[ours]) > 1
        result.outputs.append(follower.measured(made[theirs], values[ours][0], noise, computed))
    return result


class _First:
    """The first model's tensors that have a counterpart, and how far roundings carry them."""

    def __init__(self, wanted: set[str]) -> None:
        self.wanted = wanted
        self.values: dict[str, Any] = {}
        self.noise: dict[str, Any] = {}
        self.moved: set[str] = set()

    def watch(self, node: onnx.NodeProto, read: Read, name: str, value: Value) -> Value:
        if name not in self.wanted:
            return value
        self.values[name] = value[0]
        self.noise[name] = _noise(value)
        if len(value) > 1:
            self.moved.add(name)
        return value[:1]


class _Second:
    """The second model's tensors, each against its counterpart."""

    def __init__(
        self,
        pairs: Mapping[str, str],
        first: _First,
        floor: float,
        mended: str,
        result: Compared,
    ) -> None:
        self.pairs, self.first, self.floor = pairs, first, floor
        self.mended, self.result = mended, result
        self.found: dict[str, Excess] = {}

    def watch(self, node: onnx.NodeProto, read: Read, name: str, value: Value) -> Value:
        ours = self.pairs.get(name)
        if ours is None or ours not in self.first.values:
            return value
        expected = self.first.values[ours]
        noise, computed = self.first.noise[ours], ours in self.first.moved
        off = self.found[name] = self.measured(value, expected, noise, computed)
        if off.ratio <= 1:
            self.result.agreeing[name] = off
            return (expected,)
        limit = _ALMOST if ours == name else _ALMOST_UNNAMED
        almost = _almost(value[0], expected, limit)
        found = self.result.apart if almost else self.result.other
        found[name] = off
        return (expected,) if name == self.mended else value

    def measured(self, value: Value, expected: Any, noise: Any, computed: bool) -> Excess:
        """A tensor of the second model against what it should be."""
        actual = value[0]
        if isinstance(actual, list) or isinstance(expected, list):
            return _lists(actual, expected)
        if actual is None or expected is None or _kind(actual) != _kind(expected):
            return Excess(0.0 if actual is expected else np.inf)
        both = [own for own in (noise, _noise(value)) if own is not None]
        if actual.dtype.kind == "f":
            size = Spread.of(np.where(np.isfinite(expected), expected, 0.0))
            explained = Spread.joint(both) if both else Spread.of(np.zeros_like(expected))
            return excess(Spread.of(gap(actual, expected)), explained, size, self.floor)
        moved = np.zeros(actual.shape, bool)
        for own in both:
            moved |= own
        return flips(unequal(actual, expected), moved, computed or len(value) > 1)


def _noise(value: Value) -> Any:
    """How far the draws carry a tensor: a Spread, or the elements that change; None for neither."""
    base, *draws = value
    if not isinstance(base, np.ndarray):
        return None
    fitting = [d for d in draws if isinstance(d, np.ndarray) and _kind(d) == _kind(base)]
    if base.dtype.kind == "f":
        # a number that is no number in one draw tells nothing
        gaps = [gap(draw, base) for draw in fitting]
        spreads = [Spread.of(np.where(np.isfinite(one), one, 0.0)) for one in gaps]
        return Spread.joint(spreads) if spreads else None
    moved = np.zeros(base.shape, bool)
    for draw in fitting:
        moved |= unequal(draw, base)
    return moved


def _almost(actual: Any, expected: Any, limit: float) -> bool:
    """True for two floating arrays that differ by little."""
    if not isinstance(actual, np.ndarray) or _kind(actual) != _kind(expected):
        return False
    if actual.dtype.kind != "f":
        return False
    return Spread.of(gap(actual, expected)).whole <= limit * Spread.of(expected).whole


def _kind(array: Any) -> tuple[Any, ...]:
    """Shape and type, all floating types being one."""
    return array.shape, "f" if array.dtype.kind == "f" else array.dtype


def _lists(actual: Any, expected: Any) -> Excess:
    """Sequences are compared as they are, by numpy's usual criterion."""
    if not (isinstance(actual, list) and isinstance(expected, list)):
        return Excess(np.inf)
    alike = len(actual) == len(expected) and all(
        np.shape(a) == np.shape(b)
        and (np.allclose(a, b, 1e-5, 1e-6, equal_nan=True) if _numeric(a) else np.array_equal(a, b))
        for a, b in zip(actual, expected, strict=True)
    )
    return Excess(0.0 if alike else np.inf)


def _numeric(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "fiub"
