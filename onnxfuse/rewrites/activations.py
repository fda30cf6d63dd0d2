"""Activations written out in steps, as the operators that runtimes are quick with.

    x * Clip(x + 3, 0, 6) / 6  ->  x * HardSigmoid(x)
    HardSigmoid(x) + 1         ->  Clip(alpha * x + beta + 1, 1, 2), the affine part left to a Conv

Whatever the steps are, they are brought into the normal form of `polynomial` and compared there.
What is left in front or behind is a scale and a shift, which the neighbours take in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from onnxfuse.rewrites.pointwise import gelu, mish
from onnxfuse.rewrites.polynomial import Atom, Monomial, Polynomial, X

_OLDEST_GELU = 20
_OLDEST_MISH = 18
_FAR = 2.0
_PRODUCT = 2.0  # two numbers that were rounded, multiplied
_VARIABLE = X.terms[0][0][0]
_LINE: Monomial = (_VARIABLE,)

Line = tuple[float, float]
"""A scale and a shift."""

NOTHING: Line = (1.0, 0.0)


@dataclass(frozen=True)
class Step:
    """A node to make.

    Attributes:
        op_type: Its operator.
        inputs: What it reads: -1 for x, or the number of an earlier step.
        attributes: Its float attributes, and the text ones.
        bounds: Of a Clip.
    """

    op_type: str
    inputs: tuple[int, ...] = (-1,)
    attributes: Mapping[str, float | str] = field(default_factory=dict)
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Recipe:
    """A way to compute a function of x.

    Attributes:
        kind: What it is called.
        steps: The nodes.
        lead: Scale and shift in front of them.
        trail: Scale and shift behind.
    """

    kind: str
    steps: tuple[Step, ...]
    lead: Line = NOTHING
    trail: Line = NOTHING


def recipes(p: Polynomial, opset: int, tolerance: float) -> Iterator[Recipe]:
    """The ways to compute a function with known activations.

    Args:
        p: The function.
        opset: Version of the default domain.
        tolerance: By how much, of themselves, numbers may be off that somebody rounded.
    """
    terms = p.coefficients
    shift = terms.pop((), 0.0)
    if len(terms) == 1:
        ((monomial, scale),) = terms.items()
        if len(monomial) == 1:
            yield from _of_one(monomial[0], scale, shift, tolerance)
    yield from _leaky_relu(terms, shift, tolerance)
    yield from _hard_swish(terms, shift, tolerance)
    yield from _scaled_forms(p, shift, opset, tolerance)


def _of_one(atom: Atom, scale: float, shift: float, tolerance: float) -> Iterator[Recipe]:
    """scale * f(x) + shift."""
    if atom.argument != X:
        return
    if atom.function in ("sigmoid", "tanh"):
        step = Step(atom.function.capitalize())
        yield Recipe(atom.function, (step,), trail=_line(scale, tolerance, shift))
        if atom.function == "sigmoid" and _near(shift, -scale, tolerance):
            trail = _line(shift, tolerance)
            yield Recipe(atom.function, (step,), lead=(-1.0, 0.0), trail=trail)
    if atom.bounds is None:
        return
    low, high = atom.bounds
    if math.isinf(high):
        relu = (Step("Relu"),)
        lead, trail = _line(1.0, tolerance, -low), _line(scale, tolerance, shift, scale * low)
        yield Recipe("relu", relu, lead, trail)
        return
    ends = scale * low + shift, scale * high + shift
    clip = Step("Clip", bounds=(min(ends), max(ends)))
    line = _line(scale, tolerance, shift)
    yield Recipe("clip", (Step("Clip", bounds=(low, high)),), trail=line)
    yield Recipe("clip", (clip,), lead=line)
    if _is_near_zero(low, high):
        trail = _line(scale * (high - low), tolerance, shift, scale * low)
        yield Recipe("hard-sigmoid", (_gate(low, high),), trail=trail)


def _line(scale: float, tolerance: float, *shifts: float) -> Line:
    """A scale and a sum of shifts; nothing where only rounding is left."""
    shift = sum(shifts)
    is_zero = abs(shift) <= tolerance * sum(map(abs, shifts)) and len(shifts) > 1
    return (1.0 if _near(scale, 1.0, tolerance) else scale), 0.0 if is_zero else shift + 0.0


def _gate(low: float, high: float) -> Step:
    """(clamp(x, low, high) - low) / (high - low)."""
    width = high - low
    return Step("HardSigmoid", attributes={"alpha": 1.0 / width, "beta": -low / width})


def _is_near_zero(low: float, high: float) -> bool:
    """True where alpha * x + beta keeps the digits that x - low has: the bounds are not far off."""
    return max(abs(low), abs(high)) <= _FAR * (high - low) < math.inf


def _leaky_relu(
    terms: Mapping[Monomial, float], shift: float, tolerance: float
) -> Iterator[Recipe]:
    """a * x + b * relu(x)."""
    clamped = _clamped(terms, 1)
    if clamped is None or clamped[1] != (0.0, math.inf) or set(terms) != {_LINE, clamped[0]}:
        return
    below = terms[_LINE]
    above = below + terms[clamped[0]]
    if above:
        step = Step("LeakyRelu", attributes={"alpha": below / above})
        yield Recipe("leaky-relu", (step,), trail=_line(above, tolerance, shift))


def _hard_swish(
    terms: Mapping[Monomial, float], shift: float, tolerance: float
) -> Iterator[Recipe]:
    """x * (clamp(x, low, high) - low), times anything."""
    clamped = _clamped(terms, 2)
    if clamped is None or not set(terms) <= {_LINE, clamped[0]}:
        return
    (low, high), scale = clamped[1], terms[clamped[0]]
    if not _is_near_zero(low, high) or not _near(terms.get(_LINE, 0.0), -low * scale, tolerance):
        return
    steps = (_gate(low, high), Step("Mul", (-1, 0)))
    yield Recipe("hard-swish", steps, trail=_line(scale * (high - low), tolerance, shift))


def _clamped(
    terms: Mapping[Monomial, float], degree: int
) -> tuple[Monomial, tuple[float, float]] | None:
    """The term clamp(x, ..), or x * clamp(x, ..), and the bounds in it."""
    for monomial in terms:
        clamps = [atom for atom in monomial if atom.bounds is not None and atom.argument == X]
        others = [atom for atom in monomial if atom.function == "x"]
        if len(monomial) == degree and (len(clamps), len(others)) == (1, degree - 1):
            (bounds,) = (atom.bounds for atom in clamps)
            assert bounds is not None
            return monomial, bounds
    return None


def _scaled_forms(p: Polynomial, shift: float, opset: int, tolerance: float) -> Iterator[Recipe]:
    """Multiples of SiLU, GELU and Mish, with a shift."""
    rest = p.plus(-shift)
    for kind, form, steps in _forms(opset):
        scale = _ratio(rest, form, tolerance)
        if scale is not None:
            yield Recipe(kind, steps, trail=_line(scale, tolerance, shift))


@lru_cache
def _forms(opset: int) -> tuple[tuple[str, Polynomial, tuple[Step, ...]], ...]:
    """The functions that are operators of their own, or two of them."""
    silu = Polynomial((((Atom("sigmoid", X), _VARIABLE), 1.0),))
    forms: list[tuple[str, Polynomial, tuple[Step, ...]]] = [("silu", silu, _SILU)]
    forms += [("mish", mish(X), _MISH if opset >= _OLDEST_MISH else _MISH_IN_STEPS)]
    if opset >= _OLDEST_GELU:
        forms += [("gelu", gelu(X, False), _GELU), ("gelu", gelu(X, True), _GELU_BY_TANH)]
    return tuple(forms)


_SILU = (Step("Sigmoid"), Step("Mul", (-1, 0)))
_MISH = (Step("Mish"),)
_MISH_IN_STEPS = (Step("Softplus"), Step("Tanh", (0,)), Step("Mul", (-1, 1)))
_GELU = (Step("Gelu"),)
_GELU_BY_TANH = (Step("Gelu", attributes={"approximate": "tanh"}),)


def _ratio(p: Polynomial, form: Polynomial, tolerance: float) -> float | None:
    """a where p = a * form; None where there is none."""
    if not p.terms:
        return None
    scale = p.terms[0][1] / form.terms[0][1]
    return scale if _alike(p, form.times(scale), _PRODUCT * tolerance) else None


def _alike(p: Polynomial, q: Polynomial, tolerance: float) -> bool:
    """True where all numbers are the same but for rounding."""
    if len(p.terms) != len(q.terms):
        return False
    return all(
        len(first) == len(second)
        and _near(a, b, tolerance)
        and all(
            _alike_atoms(one, other, tolerance) for one, other in zip(first, second, strict=True)
        )
        for (first, a), (second, b) in zip(p.terms, q.terms, strict=True)
    )


def _alike_atoms(one: Atom, other: Atom, tolerance: float) -> bool:
    if (one.function, one.bounds) != (other.function, other.bounds):
        return False
    p, q = one.argument, other.argument
    return p is None or q is None or _alike(p, q, tolerance)


def _near(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance * max(abs(a), abs(b))
