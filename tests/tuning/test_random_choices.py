"""Whatever way is taken where, the model computes the same."""

from contextlib import suppress
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import onnxfuse
from onnxfuse.benchmark.result import Interval
from onnxfuse.benchmark.settings import Settings
from onnxfuse.pipeline import STEPS, TRIALS, optimize_with
from onnxfuse.runtime import RunError
from onnxfuse.tuning import choosing
from onnxfuse.tuning.cache import Cache
from onnxfuse.tuning.choosing import Choice, Tuning
from onnxfuse.tuning.measuring import _is_close
from tests.lift.comparing import run
from tests.lift.random_checking import compare
from tests.lift.random_graphs import models
from tests.lift.random_settings import WITHOUT_KERNELS

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
    for trial in TRIALS:
        ways[trial] = optimize_with(trial, model.proto)
    ways["as it was"] = onnxfuse.optimize(model.proto, skip=STEPS)
    names = frozenset(name for node in model.proto.graph.node for name in node.output)
    tuning = Tuning(ways, names, frozenset(), Settings("CPUExecutionProvider"), lambda *_: None)
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


def check_extracts(model):
    """Every way of every region runs by itself, and computes what the others do."""
    if model.setting.elem_type in WITHOUT_KERNELS:
        return

    def ratios(models, feeds, _):
        outputs = [run(extract, feeds) for extract in models]
        for found in outputs:
            assert all(map(_is_close, outputs[0], found))
        event(f"ways: {len(models)}")
        return [Interval(1.0, 1.0, 1.0)] * len(models)

    with mock.patch.object(choosing, "ratios", ratios), mock.patch.object(Cache, "get"):
        Cache.get.return_value = None
        with suppress(RunError):
            onnxfuse.tune(model.proto)


@given(models(most=16))
@settings(max_examples=8, derandomize=True, **CALM)
def test_regions_run_by_themselves(model):
    check_extracts(model)


@pytest.mark.nightly
@given(models(most=16))
@settings(max_examples=300, **CALM)
def test_regions_of_many_graphs_run_by_themselves(model):
    check_extracts(model)


@pytest.mark.slow
@given(models(most=16), st.integers(0, 2**32 - 1))
@settings(max_examples=8, derandomize=True, **CALM)
def test_any_choice_computes_the_same(model, seed):
    check(model, seed)


@pytest.mark.nightly
@given(models(most=16), st.integers(0, 2**32 - 1))
@settings(max_examples=300, **CALM)
def test_any_choice_computes_the_same_on_many_graphs(model, seed):
    check(model, seed)
