"""Models with constant parts, folded and checked."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.constants import fold_constants
from onnxfuse.graph import Graph
from onnxfuse.io import read
from onnxfuse.shapes import default_opset, infer_types

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

RNG = np.random.default_rng(11)

ROW = np.array([1.5, -2.25, 0.0, 3.5], np.float32)

GRID = RNG.standard_normal((4, 4)).astype(np.float32)


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def value(name, shape=None, elem_type=FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def build(nodes, weights=None, inputs=None, outputs=("y",), ir_version=8, opset=17):
    graph = helper.make_graph(
        nodes,
        "net",
        inputs or [value("x", ("N", 4))],
        [value(o) if isinstance(o, str) else o for o in outputs],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


class Folded:
    """A model after folding: its operators and weights."""

    def __init__(self, model, **options):
        source = read(model)
        self.model = source.model
        self.graph = Graph(
            self.model.graph,
            default_opset(self.model),
            self.model.ir_version,
            load=source.load,
            types=infer_types(self.model),
            keep=frozenset(options.pop("keep", ())),
        )
        fold_constants(self.graph, self.model, **options)
        self.graph.commit()
        self.operators = [n.op_type for n in self.model.graph.node]
        self.weights = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def check(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in copy.graph.output:
        output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(copy)


def fold(model, feeds=None, **options):
    """Folds, and checks that the model is valid and computes the same, bit for bit."""
    folded = Folded(model, **options)
    check(folded.model)
    feeds = {"x": RNG.standard_normal((3, 4)).astype(np.float32)} if feeds is None else feeds
    for expected, got in zip(run(model, feeds), run(folded.model, feeds), strict=True):
        assert expected.dtype == got.dtype
        np.testing.assert_array_equal(got, expected)
    return folded


ADD = node("Add", "x k", "y")
