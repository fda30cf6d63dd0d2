"""Opsets and IR versions, raised."""

import onnx
import pytest
from onnx import TensorProto, helper

from onnxfuse import ModelError
from onnxfuse.quantization.raising import raised
from tests.quantization.building import network


def opset(model):
    return max(imported.version for imported in model.opset_import if not imported.domain)


@pytest.mark.parametrize(
    ("given", "elem_type", "expected"),
    [
        (9, TensorProto.FLOAT, 13),
        (13, TensorProto.FLOAT, 13),
        (17, TensorProto.FLOAT, 17),
        (17, TensorProto.FLOAT16, 19),
        (21, TensorProto.FLOAT16, 21),
    ],
)
def test_as_far_as_quantized_tensors_need_it(given, elem_type, expected):
    model = raised(network(opset=given, elem_type=elem_type), "m")
    assert opset(model) == expected
    assert model.ir_version >= 7


def test_what_the_converter_loses_is_put_back():
    model = network(opset=9)
    for number, node in enumerate(model.graph.node):
        node.metadata_props.add(key="number", value=str(number))
        node.doc_string = f"node {number}"
    model.graph.metadata_props.add(key="a", value="b")
    model.metadata_props.add(key="c", value="d")
    made = raised(model, "m")
    assert {node.output[0]: (node.metadata_props, node.doc_string) for node in made.graph.node} == {
        node.output[0]: (node.metadata_props, node.doc_string) for node in model.graph.node
    }
    assert made.graph.metadata_props == model.graph.metadata_props
    assert made.metadata_props == model.metadata_props
    assert list(made.graph.input) == list(model.graph.input)
    assert list(made.graph.output) == list(model.graph.output)


def test_the_model_given_is_not_changed():
    model = network(opset=9, ir_version=3, list_initializers=True)
    before = model.SerializeToString()
    made = raised(model, "m")
    assert model.SerializeToString() == before
    assert [value.name for value in made.graph.input] == ["x"]


def test_refuses_what_the_converter_does_not_know():
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    node = helper.make_node("ThresholdedRelu", ["x"], ["y"])  # which came with opset 10
    graph = helper.make_graph([node], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    with pytest.raises(ModelError, match="m: int8 needs opset 13, the model has 9, and cannot be"):
        raised(model, "m")
