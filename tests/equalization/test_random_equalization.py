"""Random graphs: the equalized model is as near to the float64 result as the original."""

from __future__ import annotations

import os

import onnx
import pytest
from hypothesis import assume, event, given, settings

from onnxfuse.equalization import equalize
from onnxfuse.errors import ModelError
from onnxfuse.runtime import RunError
from tests.lift.comparing import distance
from tests.lift.random_checking import EPSILON, allowed, is_settled
from tests.lift.random_graphs import models
from tests.lift.random_truth import inlined, truth
from tests.lift.test_random_graphs import CALM


def check(model):
    before = model.proto.SerializeToString(deterministic=True)
    try:
        result = equalize(model.proto, [model.feeds()])
    except (RunError, ModelError):  # no kernels, or numbers that overflow
        assume(False)
        return
    assert model.proto.SerializeToString(deterministic=True) == before
    event(f"nodes around scaled channels: {min(len(result.nodes), 3)}")
    onnx.checker.check_model(result.model, full_check=True)
    compare(model, result.model, model.feeds(), {})
    if model.overridable:
        compare(model, result.model, model.feeds(), model.overrides())
    for change in (1, 2) if model.sizes else ():
        compare(model, result.model, model.feeds(change), {})


def compare(model, made, feeds, overrides):
    """In float64: off by no more than what roundings of constants explain."""
    epsilon = EPSILON[model.setting.elem_type]
    original, equalized = (inlined(proto, overrides) for proto in (model.proto, made))
    try:
        exact = truth(original, feeds)
    except Exception:  # two branches may meet at some sizes only
        return
    if not is_settled(original, feeds, epsilon, runs=False):
        return
    bounds = allowed(original, equalized, feeds, epsilon)
    for wide, found, bound in zip(exact, truth(equalized, feeds), bounds, strict=True):
        assert found.shape == wide.shape
        assert distance(found, wide) <= bound


@given(models())
@settings(max_examples=15, derandomize=True, **CALM)
def test_equalized_random_graphs(model):
    check(model)


@pytest.mark.slow
@given(models(most=16))
@settings(max_examples=50, **CALM)
def test_equalized_many_random_graphs(model):
    check(model)


@pytest.mark.nightly
@given(models(most=16))
@settings(max_examples=int(os.environ.get("ONNXFUSE_EXAMPLES", "2000")), **CALM)
def test_equalized_very_many_random_graphs(model):
    check(model)
