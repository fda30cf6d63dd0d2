"""ONNX's own node tests: what onnxfuse makes of each model gives the outputs that ONNX ships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from onnx.backend.test.runner import Runner

import onnxfuse
from tests.backend.node_models import FORMS, NodeModel, node_models
from tests.backend.running import run

CHUNKS = 8
# Of the models in each form, how many ONNX Runtime runs at the least: 92% of them with 1.32.
SHARE_THAT_RUNS = 0.85
SAMPLE = 97


def outputs_of(case: NodeModel) -> list[Any] | None:
    """The original's outputs; None where ONNX Runtime does not run it."""
    try:
        return run(case.proto, case.feeds)
    except Exception:  # the runtime raises types of its own, C++ ones
        return None


def is_valid(model: ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def folded(case: NodeModel) -> ModelProto:
    """The optimized model, with everything checked that needs no run."""
    before = case.proto.SerializeToString(deterministic=True)
    model = onnxfuse.optimize(case.proto).model
    after = model.SerializeToString(deterministic=True)
    assert case.proto.SerializeToString(deterministic=True) == before, "the input was changed"
    if is_valid(case.proto):
        onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.input) == list(case.proto.graph.input)
    assert list(model.graph.output) == list(case.proto.graph.output)
    again = onnxfuse.optimize(model).model.SerializeToString(deterministic=True)
    assert again == after, "a second run changes the result"
    return model


def flat(values: Sequence[Any]) -> list[np.ndarray]:
    """Arrays, those in sequences one by one; an optional that is empty is an empty array."""
    found: list[np.ndarray] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found.extend(flat(value))
        else:
            found.append(np.asarray([] if value is None else value))
    return found


def same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(flat(left), flat(right), strict=True)
        if a.dtype != object
    )


def distances(actual: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    """By output, how far it is off; infinite where shapes differ or one of two is not finite."""
    found = []
    for a, e in zip(flat(actual), flat(expected), strict=True):
        if a.shape != e.shape or a.dtype != e.dtype:
            found.append(np.inf)
        elif a.dtype.kind in "OSUTMm":
            found.append(0.0 if np.array_equal(a, e) else np.inf)
        else:
            kind = np.complex128 if a.dtype.kind == "c" else np.float64
            wide, exact = a.astype(kind), e.astype(kind)
            with np.errstate(invalid="ignore"):
                gap = np.where(
                    (wide == exact) | (np.isnan(wide) & np.isnan(exact)), 0.0, abs(wide - exact)
                )
            found.append(float(np.max(np.nan_to_num(gap, nan=np.inf), initial=0.0)))
    return found


def is_as_expected(case: NodeModel, actual: Sequence[Any]) -> bool:
    try:
        Runner.assert_similar_outputs(flat(case.expected), flat(actual), case.rtol, case.atol)
    except AssertionError:
        return False
    return True


def compare(case: NodeModel, original: Sequence[Any], model: ModelProto) -> None:
    """Holds the model to ONNX's tolerance; where the original misses that, to the original."""
    actual = run(model, case.feeds)
    if same(actual, original) or is_as_expected(case, actual):
        return
    assert not is_as_expected(case, original), "only the optimized model is off"
    if not same(original, run(case.proto, case.feeds)):
        kinds = [(a.dtype, a.shape) for a in flat(actual)]
        assert kinds == [(a.dtype, a.shape) for a in flat(original)]  # random numbers
        return
    off = zip(distances(actual, case.expected), distances(original, case.expected), strict=True)
    assert all(found <= usual for found, usual in off), "further off than the original"


def check_all(cases: Sequence[NodeModel]) -> None:
    """Checks those that run; fails with every model that something is wrong with."""
    wrong = []
    for case in cases:
        original = outputs_of(case)
        if original is None:
            continue
        try:
            compare(case, original, folded(case))
        except Exception as error:  # reported below, all of them
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_a_sample_gives_the_outputs_that_onnx_ships():
    check_all(node_models()[::SAMPLE])


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(number, marks=pytest.mark.nightly if number % 4 else pytest.mark.slow)
        for number in range(CHUNKS)
    ],
)
def test_gives_the_outputs_that_onnx_ships(chunk):
    check_all(node_models()[chunk::CHUNKS])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_models_that_the_runtime_lacks_kernels_for_stay_valid(form):
    """Says how many these are, as a skip; what they compute is not compared."""
    cases = [case for case in node_models() if case.form == form]
    left = [case for case in cases if outputs_of(case) is None]
    for case in left:
        folded(case)
    ran = len(cases) - len(left)
    assert ran >= SHARE_THAT_RUNS * len(cases)
    pytest.skip(f"{form}: ONNX Runtime runs {ran} of {len(cases)} models; {len(left)} not compared")
