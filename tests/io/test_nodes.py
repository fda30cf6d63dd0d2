import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.io import read
from onnxfuse.io.nodes import check_nodes
from tests.io.building import CONDITION, OK_BODY, body, branch, build, conv, relu


def constant(name, **value):
    return helper.make_node("Constant", [], [name], name=name, **value)


def test_the_model_is_left_alone():
    model = conv()
    before = model.SerializeToString()
    check_nodes(model)
    assert model.SerializeToString() == before


def spoiled():
    node = helper.make_node("Conv", ["x", "x"], ["y"], name="bad", strides=[1, 1])
    node.attribute[0].type = AttributeProto.FLOATS
    return node


BROKEN = {
    "attribute type": spoiled(),
    "unknown attribute": relu("bad", slope=1.0),
    "missing attribute": helper.make_node("Cast", ["x"], ["y"], name="bad"),
    "too few inputs": helper.make_node("Add", ["x"], ["y"], name="bad"),
    "too many inputs": helper.make_node("Relu", ["x", "x"], ["y"], name="bad"),
    "too many outputs": helper.make_node("Relu", ["x"], ["y", "z"], name="bad"),
    "required input left out": helper.make_node("Add", ["x", ""], ["y"], name="bad"),
}


@pytest.mark.parametrize("node", BROKEN.values(), ids=BROKEN)
def test_one_bad_node_among_good_ones_is_named(node):
    good = [relu("good", "x", "a"), helper.make_node("Add", ["x", "a"], ["b"], name="good")]
    good.append(helper.make_node("Cast", ["x"], ["c"], name="good", to=1))
    good.append(helper.make_node("Conv", ["x", "x"], ["d"], name="good", strides=[1, 1]))
    check_nodes(build(good, outputs=[]))
    with pytest.raises(onnx.checker.ValidationError, match="Name: bad"):
        check_nodes(build([*good, node], outputs=[]))
    inner = body([*good, node], [])
    with pytest.raises(onnx.checker.ValidationError, match="Name: bad"):
        check_nodes(build([branch(OK_BODY, inner)], inputs=["x", CONDITION]))


def test_a_small_tensor_without_its_data_is_told():
    empty = TensorProto(data_type=TensorProto.FLOAT, dims=[4])
    full = numpy_helper.from_array(np.zeros(4, np.float32))
    check_nodes(build([constant("a", value=full)]))
    with pytest.raises(onnx.checker.ValidationError, match="Name: b"):
        check_nodes(build([constant("a", value=full), constant("b", value=empty)]))


def test_bodies_without_names_are_taken():
    node = branch(OK_BODY, OK_BODY)
    for attribute in node.attribute:
        attribute.g.ClearField("name")
    check_nodes(build([node], inputs=["x", CONDITION]))


def test_an_if_without_a_body_is_told():
    node = branch(OK_BODY, OK_BODY)
    del node.attribute[1]
    with pytest.raises(onnx.checker.ValidationError, match="then_branch"):
        check_nodes(build([node], inputs=["x", CONDITION]))


def split(num_outputs, *outputs):
    return helper.make_node("Split", ["x"], outputs, name="parts", axis=1, num_outputs=num_outputs)


@pytest.mark.parametrize("num_outputs", [3, 10**9, 2**62])
def test_a_split_into_more_outputs_than_it_has_is_told(num_outputs):
    bad = split(num_outputs, "a", "b")
    for model in (
        build([bad], outputs=[], opset=18),
        build([branch(OK_BODY, body([bad], []))], inputs=["x", CONDITION], opset=18),
    ):
        with pytest.raises(ModelError, match=r"Split 'parts' has fewer outputs than num_outputs$"):
            read(model)


def test_a_split_into_the_outputs_it_has_is_taken():
    check_nodes(build([split(2, "a", "b")], outputs=[], opset=18))
    other = helper.make_node("Split", ["x"], ["a"], domain="org.example", num_outputs=3)
    check_nodes(build([other], outputs=[], opset=18))


@pytest.mark.parametrize("batch_dims", [-1, -(2**62)])
def test_negative_batch_dims_are_told(batch_dims):
    bad = helper.make_node("GatherND", ["x", "i"], ["y"], name="pick", batch_dims=batch_dims)
    model = build([bad], weights=[numpy_helper.from_array(np.array([0]), "i")])
    with pytest.raises(ModelError, match=r"GatherND 'pick' has negative batch_dims$"):
        read(model)


@pytest.mark.parametrize("bad", ["Split", "GatherND"])
def test_functions_are_looked_at_too(bad):
    made = {
        "Split": split(3, "a", "b"),
        "GatherND": helper.make_node("GatherND", ["x", "x"], ["b"], batch_dims=-2),
    }[bad]
    imports = [helper.make_opsetid("", 18)]
    called = helper.make_node("Own", ["x"], ["y"], domain="own")
    model = build([called], opset=18, imports=[helper.make_opsetid("own", 1)])
    model.functions.append(helper.make_function("own", "Own", ["x"], ["b"], [made], imports))
    with pytest.raises(ModelError, match=bad):
        read(model)
