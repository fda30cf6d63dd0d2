"""Bits chosen by weight, so that outputs stay within an error."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import models
import onnxfuse
from onnxfuse.compression import compress
from onnxfuse.compression.budget import ascent
from onnxfuse.runtime import RunError
from tests.compression.building import bodies_model, chain, compressed, picture, reasons

TRAINED = Path(models.__file__).parent / "trained"


@pytest.mark.parametrize("budget", [0.0, 0.003, 0.02, 0.2, 10.0])
def test_a_budget_holds_and_its_bits_are_mixed(budget):
    result = compress(chain(channels=64), budget=budget)
    bits = {weight.bits for weight in result.report.compressed}
    assert result.report.bits is None
    if not bits:
        assert budget == 0
        assert "the budget keeps it float" in reasons(result).values()
        return
    assert result.report.error.relative_l2 <= budget
    if budget == 10:
        assert bits == {2}
        assert result.report.opset[1] == 25
    if 2 not in bits:
        assert result.report.opset[1] == 21


def test_without_integers_of_two_bits_a_budget_does_without_them(monkeypatch):
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 24)
    result = compress(chain(opset=13), budget=10)
    assert {weight.bits for weight in result.report.compressed} == {4}
    with pytest.raises(onnxfuse.ModelError, match=r"storing 2 bits needs opset 25.*up to 24"):
        compress(chain(opset=13), bits=2)


def test_refuses_a_budget_where_the_result_cannot_be_run(monkeypatch):
    def fail(source, feeds):
        raise RunError("no such kernel")

    monkeypatch.setattr(sys.modules[compress.__module__], "outputs_of", fail)
    with pytest.raises(onnxfuse.ModelError, match=r"a budget needs a result.*no such kernel"):
        compress(chain(), budget=0.1)
    assert compress(chain()).report.error == "no such kernel"


def test_a_larger_budget_makes_a_smaller_file():
    budgets = (0.004, 0.03, 0.1, 0.5)
    sizes = [
        compress(TRAINED / "repvgg_digits.onnx", budget=budget).report.bytes_after
        for budget in budgets
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2


def test_a_budget_leaves_weights_in_bodies_in_float():
    model = bodies_model()
    samples = [{**picture(), "condition": np.array(False)}]
    result = compress(model, fold=False, budget=0.2, samples=samples)
    assert list(compressed(result)) == ["outer"]
    assert "in a body" in reasons(result)["inner"]


def test_the_path_takes_most_error_for_a_byte_first():
    path = ascent([[10, 20, 40], [10, 110]], [[1.0, 0.5, 0.0], [2.0, 0.0]])
    assert path == [(0, 0), (1, 0), (2, 0), (2, 1)]
    path = ascent([[10, 20, 40]], [[1.0, 0.9, 0.0]])
    assert path == [(0,), (2,)]
