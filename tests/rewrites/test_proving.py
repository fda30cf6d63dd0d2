"""Proofs of rewrites that are as exact as what they replace."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.affine import Refusal
from onnxfuse.certify import Certificate
from onnxfuse.graph import Graph
from onnxfuse.rewrites.proving import Replacement, certify_alike


def alike(factor: float) -> Certificate | Refusal:
    """x + 10000 - 10000 in float16, which has no digits there, against a multiple of x."""
    nodes = [helper.make_node("Add", ["x", "k"], ["a"]), helper.make_node("Sub", ["a", "k"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [9]) for name in "xy"]
    constant = numpy_helper.from_array(np.float16(10000), "k")
    graph = Graph(helper.make_graph(nodes, "g", ends[:1], ends[1:], [constant]), 17, 8)
    replacement = Replacement(
        kind="a multiple",
        formula="y = a * x",
        source="x",
        target="y",
        before=(0, 1),
        gone=(0, 1),
        nodes=[helper.make_node("Mul", ["x", "a"], ["y"])],
        constants={"a": np.asarray(factor)},
    )
    return certify_alike(graph, replacement, np.linspace(0.5, 3, 9).astype(np.float16))


def test_what_is_more_exact_is_alike():
    assert isinstance(alike(1.0), Certificate)


@pytest.mark.parametrize("factor", [1.006, 0.99, np.nan])
def test_what_is_another_function_is_not_alike_however_rough_the_nodes_were(factor):
    assert isinstance(alike(factor), Refusal)
