"""What the tests of activations share."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder

SIZES = ({"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 3, "w": 4})
C = 6


def refused(b: Builder, y: str, **options: object) -> onnxfuse.Report:
    model = b.model(y)
    before = sorted(node.op_type for node in model.graph.node)
    result = onnxfuse.optimize(model, **options)
    assert sorted(node.op_type for node in result.model.graph.node) == before
    return result.report


def body_of_relu() -> onnx.GraphProto:
    out = helper.make_tensor_value_info("other", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Relu", ["x"], ["other"])], "other", [], [out])
