"""The passes of the pipeline."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

import onnxfuse
from onnxfuse import fold
from onnxfuse.affine import Refusal
from tests.lift.building import Builder

C = 4


def two_layers() -> onnxfuse.OptimizeResult:
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    first = b.op("Relu", b.batch_norm(b.conv(x, C, C), C))
    return onnxfuse.optimize(b.model(b.op("Relu", b.batch_norm(b.conv(first, C, C), C))))


def operators(result: onnxfuse.OptimizeResult) -> Counter[str]:
    return Counter(node.op_type for node in result.model.graph.node)


def test_a_fold_that_was_refused_is_tried_again_once_others_are_made(monkeypatch):
    """A run on the result would find it possible too."""
    refused: list[str] = []

    def once(lowered, elem_type):
        if not refused:
            refused.append(lowered.nodes[0].op_type)
            return Refusal("not now")
        return round_constants(lowered, elem_type)

    round_constants = fold.round_constants
    monkeypatch.setattr(fold, "round_constants", once)
    result = two_layers()
    assert refused
    assert operators(result) == {"Conv": 2, "Relu": 3}
    assert not [r for r in result.report.refusals if r.reason == "not now"]


@pytest.mark.parametrize("left", [0, 1])
def test_what_stays_impossible_is_told_and_comes_to_an_end(monkeypatch, left):
    def never(lowered, elem_type):
        if len(targets) >= left or lowered.nodes[-1].output[0] in targets:
            return Refusal("never")
        targets.add(lowered.nodes[-1].output[0])
        return round_constants(lowered, elem_type)

    targets: set[str] = set()
    round_constants = fold.round_constants
    monkeypatch.setattr(fold, "round_constants", never)
    result = two_layers()
    assert operators(result)["BatchNormalization"] == 2 - left
    assert "never" in {refused.reason for refused in result.report.refusals}


def conv_and_norm() -> onnx.ModelProto:
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    return b.model(b.op("Relu", b.batch_norm(b.conv(x, C, C), C)))


def test_what_is_trained_keeps_its_name():
    model = conv_and_norm()
    weight = next(n for n in model.graph.node if n.op_type == "Conv").input[1]
    training = model.training_info.add()
    training.algorithm.name = "step"
    training.algorithm.node.add(op_type="Neg", input=[weight], output=["new"])
    training.algorithm.output.add(name="new")
    training.update_binding.add(key=weight, value="new")
    result = onnxfuse.optimize(model)
    assert operators(result) == {"Relu": 2, "Conv": 1}
    assert result.model.training_info == model.training_info
    assert weight in [tensor.name for tensor in result.model.graph.initializer]
