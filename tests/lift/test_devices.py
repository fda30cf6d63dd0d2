"""Nodes that somebody has assigned to devices."""

from __future__ import annotations

import onnxfuse
from tests.lift.building import Builder

C = 4


def test_nodes_that_are_assigned_to_devices_stay_apart():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    model = b.model(b.op("Relu", b.batch_norm(b.conv(x, C, C), C)))
    model.ir_version = 11
    for stage, node in enumerate(model.graph.node[1:3]):
        node.device_configurations.add(configuration_id="two", pipeline_stage=stage)
    result = onnxfuse.optimize(model)
    assert list(result.model.graph.node) == list(model.graph.node)
    assert "it is assigned to devices" in {r.reason for r in result.report.refusals}
