"""Random graphs: the optimized model is as near to the float64 result as the original."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized
from tests.lift.random_checking import check
from tests.lift.random_graphs import models

CALM = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@given(models())
@settings(max_examples=40, derandomize=True, **CALM)
def test_matches_on_random_graphs(model):
    check(model)


@pytest.mark.slow
@given(models(most=16))
@settings(max_examples=300, **CALM)
def test_matches_on_many_random_graphs(model):
    check(model)


@pytest.mark.nightly
@given(models(most=16))
@settings(max_examples=int(os.environ.get("ONNXFUSE_EXAMPLES", "2000")), **CALM)
def test_matches_on_very_many_random_graphs(model):
    check(model)


# What random graphs found --------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 2])
def test_a_slice_that_is_empty_at_larger_sizes_is_not_the_identity(axis):
    """x[-3:4] is x up to three pixels, and nothing from seven on."""
    b = Builder()
    x = b.input("n", 4, "h", "w")
    bounds = [b.constant(value) for value in ([-3], [4], [axis])]
    model = b.model(b.op("Relu", b.op("Slice", x, *bounds)))
    folded = optimized(model, *({"n": n, "h": n, "w": 5} for n in (2, 3, 4, 5)))
    assert folded.ops == {"Slice": 1, "Relu": 1}


@pytest.mark.parametrize("end", [1, 2, 4])
def test_a_slice_up_to_the_size_holds_at_that_size_alone(end):
    b = Builder()
    x = b.input(1, 4, 1, 1)
    y = b.op("Slice", b.conv(x, 4, 4, pads=[1, 1, 1, 1]), *map(b.constant, ([0], [end], [2])))
    assert optimized(b.model(b.op("Relu", y))).ops == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("op", ["Slice", "Split", "Gather"])
def test_tensors_without_channels_are_left_alone(op):
    b = Builder()
    y = b.conv(b.input(1, 4, 5, 5), 4, 4, (1, 1))
    if op == "Split":
        y = b.ops("Split", y, b.constant([4, 0]), outputs=2, axis=1)[1]
    elif op == "Slice":
        y = b.op("Slice", y, *map(b.constant, ([3], [2], [1])))
    else:
        y = b.op("Gather", y, b.constant(np.zeros(0, np.int64)), axis=1)
    assert optimized(b.model(b.op("Neg", y))).ops == {"Conv": 1, op: 1, "Neg": 1}


def test_a_dropout_with_a_ratio_that_is_an_input_is_left_alone():
    b = Builder()
    y = b.conv(b.input(1, 4, 5, 5), 4, 4, (1, 1))
    y = b.op("Dropout", y, b.input(name="ratio"))
    model = b.model(b.batch_norm(y, 4))
    feeds = [{**feeds_for(model), "ratio": np.asarray(0.5, np.float32)}]
    assert optimized(model, feeds=feeds).ops["Dropout"] == 1
