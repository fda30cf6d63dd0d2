"""Functions of one number, in a normal form in which different ways to write one are the same.

    x * min(max(x + 3, 0), 6) / 6  ->  1/6 * x * clamp(x, -3, 3) + 1/2 * x

A function is a polynomial in atoms: x itself, and functions of polynomials. What is under an atom
is put into normal form too: a clamp takes no factor and no shift, tanh and erf no sign. Nothing
here knows ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

_DIGITS = 10  # of numbers under an atom; what differs beyond is taken for the same
_NOISE = 1e-14
_NARROW = 1e-3  # of its bounds; a clamp between such neighbours loses its digits
_MOST_TERMS = 12
_HIGHEST_DEGREE = 6
_DEEPEST = 3
_ODD = frozenset({"erf", "tanh"})
_OF_NUMBERS: Mapping[str, Callable[[float], float]] = {
    "erf": math.erf,
    "exp": math.exp,
    "sigmoid": lambda x: 0.5 + 0.5 * math.tanh(x / 2),
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "tanh": math.tanh,
}


class TooLarge(ValueError):  # noqa: N818 - named for what it says
    """A polynomial is of no use: many terms, a high degree, close bounds, endless numbers."""


@dataclass(frozen=True, eq=False)
class Atom:
    """A factor that is not taken apart further.

    Attributes:
        function: "x", "clamp", "erf", "exp", "log", "sigmoid", "softplus" or "tanh".
        argument: What it is a function of; None for x.
        bounds: Of a clamp: the least and the greatest value.
    """

    function: str
    argument: Polynomial | None = None
    bounds: tuple[float, float] | None = None

    @cached_property
    def key(self) -> str:
        """A text that is the same for equal atoms, to sort by."""
        inner = "" if self.argument is None else self.argument.key
        return f"{self.function}({inner};{self.bounds})"

    def __eq__(self, other: object) -> bool:
        return self.key == getattr(other, "key", None)

    def __hash__(self) -> int:
        return hash(self.key)


Monomial = tuple[Atom, ...]
"""Factors, sorted; none for the number 1."""


@dataclass(frozen=True)
class Polynomial:
    """A sum of products of atoms.

    Attributes:
        terms: Monomials and their coefficients, sorted; none has the coefficient 0.
    """

    terms: tuple[tuple[Monomial, float], ...]

    @staticmethod
    def of(terms: Mapping[Monomial, float]) -> Polynomial:
        """The sum of some terms.

        Raises:
            TooLarge: If there are too many, a degree is too high, or a number is none.
        """
        kept = [(monomial, value) for monomial, value in terms.items() if value != 0.0]
        if not all(math.isfinite(value) for _, value in kept):
            raise TooLarge
        if len(kept) > _MOST_TERMS or any(len(m) > _HIGHEST_DEGREE for m, _ in kept):
            raise TooLarge
        return Polynomial(tuple(sorted(kept, key=lambda term: _order(term[0]))))

    @cached_property
    def key(self) -> str:
        """A text that is the same for equal polynomials."""
        return "+".join(f"{value!r}*{_text(monomial)}" for monomial, value in self.terms)

    @property
    def coefficients(self) -> dict[Monomial, float]:
        """Coefficients by monomial."""
        return dict(self.terms)

    @property
    def shift(self) -> float:
        """The term without x."""
        return self.coefficients.get((), 0.0)

    @property
    def number(self) -> float | None:
        """The value of a constant polynomial; None for others."""
        if not self.terms:
            return 0.0
        return self.shift if len(self.terms) == 1 and not self.terms[0][0] else None

    @property
    def bends(self) -> set[float]:
        """The finite bounds of all clamps in it."""
        atoms = [atom for monomial, _ in self.terms for atom in monomial]
        own = {bound for atom in atoms for bound in atom.bounds or () if math.isfinite(bound)}
        return own.union(*(atom.argument.bends for atom in atoms if atom.argument))

    @cached_property
    def depth(self) -> int:
        """How many functions lie in each other, at most."""
        inner = [atom.argument for monomial, _ in self.terms for atom in monomial]
        return max((1 + p.depth for p in inner if p is not None), default=0)

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = self.coefficients
        for monomial, value in other.terms:
            terms[monomial] = _sum(terms.get(monomial, 0.0), value)
        return Polynomial.of(terms)

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + other.times(-1.0)

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, float] = {}
        for first, a in self.terms:
            for second, b in other.terms:
                monomial = tuple(sorted((*first, *second), key=lambda atom: atom.key))
                terms[monomial] = _sum(terms.get(monomial, 0.0), a * b)
        return Polynomial.of(terms)

    def times(self, factor: float) -> Polynomial:
        """Every coefficient times a number."""
        return Polynomial.of({monomial: factor * value for monomial, value in self.terms})

    def plus(self, shift: float) -> Polynomial:
        """The sum with a number."""
        return self + constant(shift)

    def normal(self) -> tuple[float, Polynomial, float]:
        """(a, q, b) with p = a * q + b; q has no shift, and its first coefficient is 1."""
        rest = self.plus(-self.shift)
        scale = rest.terms[0][1]
        return scale, _rounded(rest.times(1.0 / scale)), self.shift


def constant(value: float) -> Polynomial:
    """A number."""
    return Polynomial.of({(): float(value)})


X = Polynomial((((Atom("x"),), 1.0),))
"""The variable."""


@lru_cache(maxsize=1 << 12)
def clamp(p: Polynomial, low: float, high: float) -> Polynomial:
    """min(max(p, low), high); either bound may be infinite.

    In normal form no clamp has an upper bound alone: min(q, h) is q - max(q, h) + h.

    Raises:
        TooLarge: If the bounds are all but one.
    """
    number = p.number
    if number is not None:
        return constant(min(max(number, low), high))
    if low >= high:
        return constant(high)
    scale, q, shift = p.normal()
    ends = _through(scale, shift, low, high)
    width = ends[1] - ends[0]
    if math.isfinite(width) and width <= _NARROW * max(map(abs, ends)):
        raise TooLarge
    inner = _as_clamp(q)
    if inner is None:
        return _clamped(q, *map(_digits, ends)).times(scale).plus(shift)
    factor, argument, bounds, offset = inner
    ends = _through(factor, offset, *ends)
    least, greatest = (min(max(bound, ends[0]), ends[1]) for bound in bounds)
    return clamp(argument, least, greatest).times(scale * factor).plus(shift + scale * offset)


def _through(scale: float, shift: float, low: float, high: float) -> tuple[float, float]:
    """The bounds of q where those of scale * q + shift are given."""
    first, second = (low - shift) / scale, (high - shift) / scale
    return min(first, second), max(first, second)


def _as_clamp(q: Polynomial) -> tuple[float, Polynomial, tuple[float, float], float] | None:
    """(a, p, bounds, b) where q = a * clamp(p, bounds) + b, an upper bound alone among them."""
    for monomial, factor in q.terms:
        argument, bounds = (monomial[0].argument, monomial[0].bounds) if monomial else (None, None)
        if len(monomial) != 1 or argument is None or bounds is None:
            continue
        rest = q - Polynomial(((monomial, factor),))
        if not rest.terms:
            return factor, argument, bounds, 0.0
        if math.isinf(bounds[1]) and rest == argument.times(-factor):
            return -factor, argument, (-math.inf, bounds[0]), factor * bounds[0]
    return None


def _clamped(q: Polynomial, low: float, high: float) -> Polynomial:
    if math.isinf(low) and math.isinf(high):
        return q
    if math.isinf(low):
        return q - _atom("clamp", q, (high, math.inf)) + constant(high)
    return _atom("clamp", q, (low, high))


def maximum(p: Polynomial, q: Polynomial) -> Polynomial:
    """max(p, q)."""
    for one, other in ((p, q), (q, p)):
        if (number := other.number) is not None:
            return clamp(one, number, math.inf)
    return q + clamp(p - q, 0.0, math.inf)


def minimum(p: Polynomial, q: Polynomial) -> Polynomial:
    """min(p, q)."""
    for one, other in ((p, q), (q, p)):
        if (number := other.number) is not None:
            return clamp(one, -math.inf, number)
    return p - clamp(p - q, 0.0, math.inf)


def applied(function: str, p: Polynomial) -> Polynomial:
    """erf, exp, sigmoid, softplus or tanh of a polynomial.

    Raises:
        OverflowError: It is exp of too large a number.
    """
    if (number := p.number) is not None:
        return constant(_OF_NUMBERS[function](number))
    rounded = _rounded(p)
    leads_negative = _leading(rounded) < 0
    if function in _ODD and leads_negative:
        return _atom(function, rounded.times(-1.0)).times(-1.0)
    if function == "sigmoid" and leads_negative:
        return constant(1.0) - _atom(function, rounded.times(-1.0))
    return _atom(function, rounded)


def logarithm(p: Polynomial) -> Polynomial | None:
    """log(1 + exp(q)) as softplus(q); None for any other logarithm."""
    exponent = _exponent(p)
    if exponent is None or not math.isclose(exponent[0], 1.0, rel_tol=1e-9):
        return None
    return applied("softplus", exponent[1])


def reciprocal(p: Polynomial) -> Polynomial | None:
    """1 / p, where p is a number or a multiple of 1 + exp(q); else None."""
    number = p.number
    if number is not None:
        return constant(1.0 / number) if number and math.isfinite(1.0 / number) else None
    exponent = _exponent(p)
    if exponent is None:
        return None
    scale, q = exponent
    return applied("sigmoid", q.times(-1.0)).times(1.0 / scale)


def power(p: Polynomial, exponent: float) -> Polynomial | None:
    """p to a whole power up to the highest degree; None for others."""
    if exponent != int(exponent) or not 1 <= exponent <= _HIGHEST_DEGREE:
        return None
    result = p
    for _ in range(int(exponent) - 1):
        result = result * p
    return result


def _exponent(p: Polynomial) -> tuple[float, Polynomial] | None:
    """(a, q) where p = a * (1 + exp(q))."""
    terms = p.coefficients
    scale = terms.pop((), 0.0)
    if len(terms) != 1:
        return None
    ((monomial, factor),) = terms.items()
    if len(monomial) != 1 or monomial[0].function != "exp" or not scale:
        return None
    argument, ratio = monomial[0].argument, factor / scale
    assert argument is not None
    return (scale, argument.plus(math.log(ratio))) if 0 < ratio < math.inf else None


def _atom(function: str, p: Polynomial, bounds: tuple[float, float] | None = None) -> Polynomial:
    if p.depth >= _DEEPEST:
        raise TooLarge
    return Polynomial((((Atom(function, p, bounds),), 1.0),))


def _leading(p: Polynomial) -> float:
    return next(value for monomial, value in p.terms if monomial)


def _rounded(p: Polynomial) -> Polynomial:
    return Polynomial.of({monomial: _digits(value) for monomial, value in p.terms})


def _digits(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") + 0.0


def _sum(a: float, b: float) -> float:
    """a + b; 0 where nothing but rounding is left of them."""
    return 0.0 if abs(a + b) < _NOISE * (abs(a) + abs(b)) else a + b


def _text(monomial: Iterable[Atom]) -> str:
    return "*".join(atom.key for atom in monomial) or "1"


@lru_cache(maxsize=1 << 12)
def _order(monomial: Monomial) -> tuple[int, int, str]:
    """x before its powers before other atoms before the number 1."""
    return (not monomial, any(atom.argument for atom in monomial), _text(monomial))
