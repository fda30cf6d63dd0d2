"""What is taken for a known activation, before any proof."""

from __future__ import annotations

import math

import pytest

from onnxfuse.rewrites.activations import recipes
from onnxfuse.rewrites.pointwise import gelu, mish
from onnxfuse.rewrites.polynomial import Polynomial, TooLarge, X, applied, constant, reciprocal

TOLERANCE = 1e-7


def kinds(p: Polynomial) -> list[str]:
    return [recipe.kind for recipe in recipes(p, 20, TOLERANCE)]


def test_known_activations():
    assert kinds(X * applied("sigmoid", X)) == ["silu"]
    assert kinds(mish(X)) == ["mish"]
    assert kinds(gelu(X, False)) == ["gelu"]
    assert kinds(gelu(X, True)) == ["gelu"]


@pytest.mark.parametrize("function", ["tanh", "sigmoid", "softplus"])
def test_another_function_in_the_same_place_is_another_activation(function):
    gate = applied(function, X.times(math.sqrt(0.5)))
    assert kinds((X * gate.plus(1.0)).times(0.5)) == []


def test_another_function_further_down_is_another_activation():
    assert kinds(X * applied("tanh", applied("sigmoid", X))) == []


@pytest.mark.parametrize("off", [1e-6, -1e-6])
def test_numbers_that_are_not_those_of_an_activation(off):
    gate = applied("erf", X.times(math.sqrt(0.5) * (1 + off)))
    assert kinds((X * gate.plus(1.0)).times(0.5)) == []


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_over_one_plus_exp_is_a_sigmoid_with_any_factor(sign):
    found = reciprocal(applied("exp", X).plus(1.0).times(2 * sign))
    assert found == applied("sigmoid", X.times(-1.0)).times(0.5 * sign)


@pytest.mark.parametrize(("one", "factor"), [(1.0, -1.0), (-1.0, 1.0), (0.0, 1.0)])
def test_one_over_a_difference_is_none(one, factor):
    assert reciprocal(applied("exp", X).times(factor).plus(one)) is None


def test_factors_that_are_beyond_numbers():
    assert reciprocal(applied("exp", X).times(1e-200).plus(1e200)) is None
    with pytest.raises(TooLarge):
        X.times(1e200) * constant(1e200)
