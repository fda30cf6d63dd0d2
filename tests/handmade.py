"""Small models put together by hand, node by node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, shape=None, elem_type=FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def integers(name, *content):
    return numpy_helper.from_array(np.array(content, np.int64), name)


def build(nodes, inputs, outputs=("y",), weights=(), infos=(), ir_version=8, opset=17, imports=()):
    graph = helper.make_graph(
        nodes,
        "net",
        list(inputs),
        [onnx.ValueInfoProto(name=o) if isinstance(o, str) else o for o in outputs],
        list(weights),
        value_info=list(infos),
    )
    opsets = [helper.make_opsetid("", opset), *imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def conv_relu(**options):
    kernel = numpy_helper.from_array(np.ones((16, 8, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    options.setdefault("inputs", [value("x", ("N", 8, 21, 33))])
    return build(nodes, weights=[kernel], **options)
