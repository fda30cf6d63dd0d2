import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.hollow import INLINE_BYTES, hollow, payload_bytes, tensors
from tests.handmade import BOOL, FLOAT, build, conv_relu, integers, value


def test_hollow_copies_structure_and_small_tensors_but_no_weights():
    model = conv_relu()
    model.graph.initializer.append(integers("axes", 2, 3))
    before = model.SerializeToString()
    emptied = []
    copy = hollow(model, emptied)
    assert model.SerializeToString() == before
    kernel, axes = copy.graph.initializer
    assert (kernel.name, kernel.data_type, list(kernel.dims)) == ("w", FLOAT, [16, 8, 3, 3])
    assert kernel.data_location == TensorProto.EXTERNAL
    assert not kernel.raw_data
    assert axes == model.graph.initializer[1]
    assert copy.graph.node == model.graph.node
    assert [(full.name, empty.name) for full, empty in emptied] == [("w", "w")]
    assert emptied[0][0].raw_data == model.graph.initializer[0].raw_data


def test_hollow_reaches_attributes_bodies_and_functions():
    big = np.ones(INLINE_BYTES, np.float32)
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(big, "attr"))
    body = helper.make_graph(
        [constant], "body", [], [value("k")], [numpy_helper.from_array(big, "inner")]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    model = build([node, helper.make_node("Identity", ["y"], ["z"])], [value("c", (), BOOL)], ["z"])
    function = helper.make_function("f", "F", [], ["k"], [constant], [helper.make_opsetid("", 17)])
    model.functions.append(function)
    assert len(list(tensors(model))) == 5
    emptied = []
    copy = hollow(model, emptied)
    assert len(emptied) == 5
    assert all(not tensor.raw_data for tensor in tensors(copy))
    assert copy.ByteSize() < 1000
    for full, empty in emptied:
        empty.CopyFrom(full)
    assert copy == model


@pytest.mark.parametrize(
    ("elem_type", "dims", "expected"),
    [
        ("FLOAT", (3, 5), 60),
        ("FLOAT16", (7,), 14),
        ("BFLOAT16", (7,), 14),
        ("BOOL", (), 1),
        ("INT4", (3,), 2),
        ("UINT4", (4,), 2),
        ("DOUBLE", (2, 0), 0),
        ("COMPLEX128", (2,), 32),
        ("STRING", (9,), 0),
        ("INT64", (10**6, 10**6, 10**6), 8 * 10**18),
    ],
)
def test_payload_bytes(elem_type, dims, expected):
    tensor = TensorProto(data_type=getattr(TensorProto, elem_type), dims=dims)
    assert payload_bytes(tensor) == expected
