"""ONNX Runtime as an oracle: one node, graph optimizations off, on tensors of small integers.

Sums of products of small integers are exact in float32, so that results can be compared for
equality; only what divides needs a tolerance, and that is a few roundings of float32.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, helper

from onnxfuse.reference import evaluate

# Division rounds once, and ONNX Runtime may multiply by a rounded reciprocal instead (twice more).
DIVISION = 4 * float(np.finfo(np.float32).eps)

NEWEST_OF_ONNXRUNTIME = 26


def integers(rng: np.random.Generator, *shape: int, dtype: type = np.float32) -> np.ndarray:
    """Integers from -8 to 8 as dtype."""
    return rng.integers(-8, 9, shape).astype(dtype)


def run_onnxruntime(
    nodes: list[NodeProto], inputs: Mapping[str, np.ndarray], opset: int
) -> dict[str, np.ndarray]:
    """Every output of the nodes."""
    names = [name for node in nodes for name in node.output if name]
    graph = helper.make_graph(
        nodes,
        "oracle",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in names],
    )
    opsets = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(opsets)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def assert_agrees(
    node: NodeProto, inputs: Mapping[str, np.ndarray], opset: int, rtol: float = 0.0
) -> None:
    """Checks that evaluate and ONNX Runtime give the same outputs, shapes and kinds of type."""
    expected = run_onnxruntime([node], inputs, opset)
    actual = evaluate([node], inputs, opset)
    for name, value in expected.items():
        kind = np.dtype(np.float64) if value.dtype.kind == "f" else value.dtype
        assert actual[name].dtype == kind
        assert actual[name].shape == value.shape
        np.testing.assert_allclose(actual[name], value, rtol=rtol, atol=0)
