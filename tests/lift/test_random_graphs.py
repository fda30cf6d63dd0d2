"""Random graphs: the optimized model is as near to the float64 result as the original."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, event, given, settings

from tests.lift.comparing import assert_agrees, feeds_for, optimized, run
from tests.lift.random_graphs import Model, models

CALM = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


def check(model: Model) -> None:
    """Compares at the sizes that the model was made for, and at others where it runs at all."""
    folded = optimized(model.proto, model.sizes)
    event(f"folds: {min(len(folded.report.folds), 3)}")
    for change in (1, 2):
        sizes = {name: size + change for name, size in model.sizes.items()}
        feeds = feeds_for(model.proto, sizes)
        try:
            run(model.proto, feeds)
        except Exception:  # two branches may meet at some sizes only
            continue
        assert_agrees(model.proto, folded.model, feeds)
        if not sizes:
            break


@given(models())
@settings(max_examples=100, derandomize=True, **CALM)
def test_matches_on_random_graphs(model):
    check(model)


@pytest.mark.slow
@given(models(most=16))
@settings(max_examples=int(os.environ.get("ONNXFUSE_EXAMPLES", "1000")), **CALM)
def test_matches_on_many_random_graphs(model):
    check(model)
