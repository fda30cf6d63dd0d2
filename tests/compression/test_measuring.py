"""How far outputs are off, and models that a newer opset changes."""

import sys

import numpy as np
import onnx
import pytest

import onnxfuse
from onnxfuse import io
from onnxfuse.compression import compress
from onnxfuse.compression.measuring import Reference, runs_opset
from onnxfuse.runtime import RunError
from tests.compression.building import chain, picture
from tests.lift.building import Builder


def reference(model, feeds):
    return Reference(io.read(model), [feeds])


def model_of_classes(opset=13):
    """A Conv and which of its channels is largest: no output is floating-point."""
    b = Builder(opset)
    y = b.op("ArgMax", b.op("Conv", b.input(1, 48, 6, 6), b.random(48, 48, 3, 3)), axis=1)
    model = b.model(y)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return model


def test_a_change_is_the_share_of_integers_that_differ():
    made = reference(model_of_classes(), picture())
    (classes,) = made.outputs[0]
    other = classes.copy()
    other.reshape(-1)[:4] += 1
    assert made.change([[classes]]) == 0
    assert made.change([[other]]) == 4 / classes.size
    assert made.change([[classes[:, :, 1:]]]) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_no_longer_finite_are_infinitely_off(value):
    made = reference(chain(), picture())
    broken = made.outputs[0][0].copy()
    broken[0, 0, 0, 0] = value
    assert made.change([[broken]]) == np.inf
    assert made.error([[broken]]).relative_l2 == np.inf


def test_outputs_that_are_no_longer_zero_are_infinitely_off():
    made = reference(chain(), picture())
    (y,) = made.outputs[0]
    made.outputs = [[np.zeros_like(y)]]
    assert made.change([[y]]) == np.inf
    assert made.change([[np.zeros_like(y)]]) == 0


def test_refuses_a_model_whose_integers_change_at_the_newer_opset(monkeypatch):
    def other(source, feeds):
        return [[np.zeros((1, 1, 4, 4), np.int64)]]

    monkeypatch.setattr(sys.modules[compress.__module__], "outputs_of", other)
    with pytest.raises(onnxfuse.ModelError, match=r"raised from opset 13 to 21.*something else"):
        compress(model_of_classes())


def test_refuses_a_model_that_cannot_be_run_at_the_newer_opset(monkeypatch):
    def fail(source, feeds):
        raise RunError("no such kernel")

    module = sys.modules[compress.__module__]
    monkeypatch.setattr(module, "outputs_of", fail)
    with pytest.raises(onnxfuse.ModelError, match="cannot be run any more: no such kernel"):
        compress(chain(opset=13))
    monkeypatch.setattr(module, "runs_opset", lambda opset: False)
    assert compress(chain(opset=13)).report.error == "no such kernel"


def test_which_opsets_the_runtime_runs():
    assert runs_opset(21)
    assert not runs_opset(1000)


def test_refuses_a_budget_for_outputs_that_cannot_be_compared():
    with pytest.raises(onnxfuse.ModelError, match=r"can be compared.*there are none"):
        compress(model_of_classes(), budget=0.1)


def test_a_budget_for_a_model_without_weights():
    b = Builder(13)
    result = compress(b.model(b.op("Relu", b.input(1, 3))), budget=0.1)
    assert result.report.compressed == ()
    assert result.report.error == "nothing is compressed"
