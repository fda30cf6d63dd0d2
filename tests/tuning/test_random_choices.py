"""Whatever way is taken where, the model computes the same."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import onnxfuse
from onnxfuse.benchmark.settings import Settings
from onnxfuse.pipeline import STEPS
from onnxfuse.tuning.choosing import Choice, Tuning
from tests.lift.random_checking import compare
from tests.lift.random_graphs import models

CALM = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


def check(model, seed):
    """Takes ways at random."""
    rng = np.random.default_rng(seed)
    ways = {"": onnxfuse.optimize(model.proto)}
    for step in sorted({fold.step for fold in ways[""].report.folds}):
        ways[step] = onnxfuse.optimize(model.proto, skip=[step])
    ways["as it was"] = onnxfuse.optimize(model.proto, skip=STEPS)
    tuning = Tuning(ways, frozenset(), Settings("CPUExecutionProvider"), lambda *_: None)
    choices = [
        Choice(region, way, 2.0)
        for region in tuning.regions
        if (way := int(rng.choice(region.ways())))
    ]
    event(f"choices: {min(len(choices), 3)}")
    made = tuning.made(choices)
    onnx.checker.check_model(made.model, full_check=True)
    assert list(made.model.graph.output) == list(model.proto.graph.output)
    assert len(made.report.tuned) == len(choices)
    assert compare(model, made.model, model.feeds())
    if model.overridable:
        compare(model, made.model, model.feeds(), model.overrides())
    for change in (1, 2) if model.sizes else ():
        compare(model, made.model, model.feeds(change))


@given(models(most=16), st.integers(0, 2**32 - 1))
@settings(max_examples=25, derandomize=True, **CALM)
def test_any_choice_computes_the_same(model, seed):
    check(model, seed)


@pytest.mark.nightly
@given(models(most=16), st.integers(0, 2**32 - 1))
@settings(max_examples=300, **CALM)
def test_any_choice_computes_the_same_on_many_graphs(model, seed):
    check(model, seed)
