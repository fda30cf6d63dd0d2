"""The normal form: what it computes, and that different ways to write a function agree in it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse.rewrites import polynomial
from onnxfuse.rewrites.polynomial import Polynomial, TooLarge, X, clamp, constant

GRID = np.concatenate([np.linspace(-9, 9, 181), [-40.0, 40.0]])
FUNCTIONS = {
    "erf": np.vectorize(math.erf),
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "tanh": np.tanh,
}


def values(p: Polynomial, x: np.ndarray) -> np.ndarray:
    """The polynomial at x, term by term."""
    total = np.zeros_like(x)
    for monomial, coefficient in p.terms:
        term = np.full_like(x, coefficient)
        for atom in monomial:
            if atom.argument is None:
                term = term * x
                continue
            inner = values(atom.argument, x)
            if atom.bounds is None:
                term = term * FUNCTIONS[atom.function](inner)
            else:
                term = term * np.minimum(np.maximum(inner, atom.bounds[0]), atom.bounds[1])
        total = total + term
    return total


NUMBERS = st.integers(-6, 6).map(lambda n: n / 2)
WRITTEN = st.recursive(
    st.just(("x",)) | st.tuples(st.just("number"), NUMBERS),
    lambda inner: (
        st.tuples(st.sampled_from(["add", "sub", "mul", "max", "min"]), inner, inner)
        | st.tuples(st.just("clamp"), inner, NUMBERS, NUMBERS)
        | st.tuples(st.sampled_from(["times", "plus"]), inner, NUMBERS)
        | st.tuples(st.sampled_from(["erf", "sigmoid", "softplus", "tanh"]), inner)
    ),
    max_leaves=6,
)


def both(written: tuple, x: np.ndarray) -> tuple[Polynomial, np.ndarray]:
    """An expression in normal form, and its values at x by numpy."""
    op, *rest = written
    if op == "x":
        return X, x
    if op == "number":
        return constant(rest[0]), np.full_like(x, rest[0])
    p, a = both(rest[0], x)
    if op in ("times", "plus"):
        by = rest[1]
        return (p.times(by), a * by) if op == "times" else (p.plus(by), a + by)
    if op == "clamp":
        low, high = sorted(rest[1:])
        return clamp(p, low, high), np.minimum(np.maximum(a, low), high)
    if op in FUNCTIONS:
        return polynomial.applied(op, p), FUNCTIONS[op](a)
    q, b = both(rest[1], x)
    found = {
        "add": lambda: (p + q, a + b),
        "sub": lambda: (p - q, a - b),
        "mul": lambda: (p * q, a * b),
        "max": lambda: (polynomial.maximum(p, q), np.maximum(a, b)),
        "min": lambda: (polynomial.minimum(p, q), np.minimum(a, b)),
    }
    return found[op]()


@settings(max_examples=400, deadline=None)
@given(WRITTEN)
def test_the_normal_form_computes_what_was_written(written):
    with np.errstate(over="ignore"):
        try:
            p, expected = both(written, GRID)
        except TooLarge:
            return
        actual = values(p, GRID)
    scale = max(1.0, float(np.abs(expected).max()), *(abs(v) for _, v in p.terms)) * 41**2
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-9 * scale)


def written_alike() -> list[tuple[Polynomial, Polynomial]]:
    relu = clamp(X, 0.0, math.inf)
    minus = X.times(-1.0)
    exp = polynomial.applied("exp", minus)
    return [
        (
            X * clamp(X.plus(3.0), 0.0, 6.0).times(1 / 6),
            (X * clamp(X, -3.0, 3.0)).times(1 / 6) + X.times(0.5),
        ),
        (clamp(relu, -math.inf, 6.0), clamp(X, 0.0, 6.0)),
        (clamp(clamp(X, -math.inf, 6.0), 0.0, math.inf), clamp(X, 0.0, 6.0)),
        (clamp(minus, -6.0, 0.0).times(-1.0), clamp(X, 0.0, 6.0)),
        (clamp(X, -math.inf, 2.0), minus.times(-1.0) - clamp(X, 2.0, math.inf) + constant(2.0)),
        (polynomial.maximum(X, X.times(0.1)), X.times(0.1) + relu.times(0.9)),
        (polynomial.minimum(X, X.times(2.0)), X.times(2.0) - relu),
        (polynomial.maximum(constant(1.0), X), clamp(X, 1.0, math.inf)),
        (clamp(clamp(X, 0.0, 4.0), 5.0, 6.0), constant(5.0)),
        (clamp(clamp(X, 0.0, 4.0), 1.0, 9.0), clamp(X, 1.0, 4.0)),
        (polynomial.applied("tanh", minus), polynomial.applied("tanh", X).times(-1.0)),
        (polynomial.applied("sigmoid", minus), constant(1.0) - polynomial.applied("sigmoid", X)),
        (polynomial.reciprocal(exp.plus(1.0)), polynomial.applied("sigmoid", X)),
        (
            polynomial.reciprocal(exp.plus(1.0).times(4.0)),
            polynomial.applied("sigmoid", X).times(0.25),
        ),
        (
            polynomial.logarithm(polynomial.applied("exp", X).plus(1.0)),
            polynomial.applied("softplus", X),
        ),
        (polynomial.power(X, 3.0), X * X * X),
        (polynomial.reciprocal(constant(4.0)), constant(0.25)),
    ]


def test_ways_to_write_a_function_have_one_form():
    for number, (first, second) in enumerate(written_alike()):
        assert first == second, number
        assert first.key == second.key


EXP = polynomial.applied("exp", X)


@pytest.mark.parametrize(
    "found",
    [
        lambda: polynomial.reciprocal(X),
        lambda: polynomial.reciprocal(constant(0.0)),
        lambda: polynomial.reciprocal(constant(1e-320)),
        lambda: polynomial.reciprocal(EXP.plus(-1.0)),
        lambda: polynomial.reciprocal(constant(1.0) - EXP),
        lambda: polynomial.reciprocal(polynomial.applied("tanh", X).plus(1.0)),
        lambda: polynomial.reciprocal(EXP * X + constant(1.0)),
        lambda: polynomial.reciprocal(EXP + X + constant(1.0)),
        lambda: polynomial.logarithm(X),
        lambda: polynomial.logarithm(EXP.plus(2.0)),
        lambda: polynomial.logarithm(constant(2.0)),
        lambda: polynomial.power(X, 0.5),
        lambda: polynomial.power(X, 2.5),
        lambda: polynomial.power(X, -1.0),
        lambda: polynomial.power(X, 0.0),
        lambda: polynomial.power(X, 7.0),
    ],
)
def test_what_has_no_form_is_none(found):
    assert found() is None


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_of_a_number_is_a_number(function):
    found = polynomial.applied(function, X - X + constant(0.7)).number
    assert found == pytest.approx(float(FUNCTIONS[function](np.asarray(0.7))))


def test_sums_that_cancel_leave_no_term():
    p = X.times(0.1) + X.times(0.2) - X.times(0.3)
    assert p.terms == ()
    assert p.number == 0.0


def test_numbers_under_a_function_are_the_same_beyond_ten_digits():
    first = polynomial.applied("erf", X.times(0.7))
    assert first == polynomial.applied("erf", X.times(0.7 + 1e-13))
    assert first != polynomial.applied("erf", X.times(0.7 + 1e-8))


def test_what_grows_too_large_is_told():
    deep = X
    for _ in range(3):
        deep = polynomial.applied("tanh", deep)
    with pytest.raises(TooLarge):
        polynomial.applied("tanh", deep)
    with pytest.raises(TooLarge):
        X * X * X * X * X * X * X
    sums = sum((clamp(X, 0.0, n) for n in range(1, 12)), X)
    with pytest.raises(TooLarge):
        sums + clamp(X, 0.0, 50.0)


@pytest.mark.parametrize("low", [3.0 - 1e-10, 3.0 - 1e-7, 2.999])
def test_bounds_that_are_all_but_one_are_of_no_use(low):
    with pytest.raises(TooLarge):
        clamp(X, low, 3.0)
    with pytest.raises(TooLarge):
        clamp(clamp(X, -1.0, 3.0), low, 6.0)


def test_bends_are_the_bounds_at_any_depth():
    p = polynomial.applied("tanh", clamp(X, -2.0, math.inf)) + clamp(X, 1.0, 7.0)
    assert p.bends == {-2.0, 1.0, 7.0}
