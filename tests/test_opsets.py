"""Raising the opset: what is computed stays, and so does everything written in the model."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from onnxfuse.hollow import tensors
from onnxfuse.opsets import raise_opset
from tests.compression.building import chain
from tests.compression.definition import run_for
from tests.lift.building import Builder

SPEC = importlib.util.find_spec("rapidocr_onnxruntime")
assert SPEC is not None, "the test extra installs rapidocr-onnxruntime"
REAL = {
    "ch_PP-OCRv4_det_infer": (1, 3, 96, 128),
    "ch_PP-OCRv4_rec_infer": (1, 3, 48, 128),
    "ch_ppocr_mobile_v2.0_cls_infer": (2, 3, 48, 100),
}


# Relative L2, between two float32 models that compute the same: the runtime has other kernels for
# some operators (AveragePool) of newer opsets.
LARGEST_DISTANCE = 1e-5


def raised(model, opset=21):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    raise_opset(copy, opset, "a test")
    return copy


def assert_same(model, feeds, opset=21):
    new = raised(model, opset)
    onnx.checker.check_model(new, full_check=True)
    assert {o.version for o in new.opset_import if not o.domain} == {opset}
    names = [output.name for output in model.graph.output]
    before, after = (run_for(m, names, feeds, False) for m in (model, new))
    for first, second in zip(before, after, strict=True):
        assert np.linalg.norm(first - second) <= LARGEST_DISTANCE * np.linalg.norm(first)
    return new


def image(*shape):
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


SCALES = np.array([1, 1, 2, 3], np.float32)
SMALLER = np.array([1, 1, 0.7, 0.6], np.float32)
HALF = np.array([1, 1, 0.5, 3], np.float32)
PADS = [0, 0, 1, 0, 0, 0, 2, 1]
CHANGED = {
    "Upsample-linear": (9, lambda b, x: b.op("Upsample", x, b.constant(SCALES), mode="linear")),
    "Upsample-nearest": (9, lambda b, x: b.op("Upsample", x, b.constant(SCALES), mode="nearest")),
    "Upsample-7": (7, lambda b, x: b.op("Upsample", x, mode="linear", scales=SCALES.tolist())),
    "Resize-linear": (10, lambda b, x: b.op("Resize", x, b.constant(SCALES), mode="linear")),
    "Resize-nearest": (10, lambda b, x: b.op("Resize", x, b.constant(SCALES), mode="nearest")),
    "Resize-13": (13, lambda b, x: b.op("Resize", x, "", b.constant(SCALES), mode="linear")),
    "Softmax": (11, lambda b, x: b.op("Softmax", x, axis=1)),
    "LogSoftmax": (9, lambda b, x: b.op("LogSoftmax", x, axis=2)),
    "Clip": (9, lambda b, x: b.op("Clip", x, min=0.0, max=0.5)),
    "Pad": (9, lambda b, x: b.op("Pad", x, pads=[0, 0, 1, 0, 0, 0, 2, 1], value=0.5)),
    "Slice": (9, lambda b, x: b.op("Slice", x, axes=[2, 3], starts=[0, 1], ends=[2, 3])),
    "ReduceMean": (9, lambda b, x: b.op("ReduceMean", x, axes=[2, 3], keepdims=0)),
    "ReduceSum": (9, lambda b, x: b.op("ReduceSum", x, axes=[1])),
    "Squeeze": (9, lambda b, x: b.op("Squeeze", b.op("ReduceMax", x, axes=[3]), axes=[3])),
    "Unsqueeze": (9, lambda b, x: b.op("Unsqueeze", x, axes=[0])),
    "Split": (9, lambda b, x: b.op("Concat", *b.ops("Split", x, outputs=2, axis=1), axis=1)),
    "Dropout": (9, lambda b, x: b.op("Dropout", x, ratio=0.3)),
    "BatchNormalization": (7, lambda b, x: b.batch_norm(x, 4, epsilon=0.1)),
    "Cast": (9, lambda b, x: b.op("Cast", b.op("Cast", x, to=TensorProto.INT32), to=1)),
    "AveragePool": (9, lambda b, x: b.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])),
    "Flatten": (7, lambda b, x: b.op("Flatten", x, axis=1)),
    "Hardmax": (11, lambda b, x: b.op("Hardmax", x)),
    "Hardmax-2": (9, lambda b, x: b.op("Hardmax", x, axis=2)),
    "Hardmax-last": (11, lambda b, x: b.op("Hardmax", x, axis=-1)),
    "Pad-edge": (9, lambda b, x: b.op("Pad", x, pads=PADS, mode="edge", value=0.5)),
    "Resize-smaller": (10, lambda b, x: b.op("Resize", x, b.constant(SMALLER))),
    "Resize-half": (10, lambda b, x: b.op("Resize", x, b.constant(HALF))),
    "Gelu-like": (13, lambda b, x: b.op("Mul", x, b.op("Erf", x))),
}


@pytest.mark.parametrize("opset", [21, 25])
@pytest.mark.parametrize("name", CHANGED)
def test_operators_that_changed_compute_the_same(name, opset):
    old, make = CHANGED[name]
    b = Builder(old)
    x = b.conv(b.input(2, 4, 5, 6), 4, 4, (1, 1))
    assert_same(b.model(make(b, x)), image(2, 4, 5, 6), opset)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", REAL)
def test_real_models_compute_the_same_at_newer_opsets(name, bits):
    model = onnx.load(Path(SPEC.origin).parent / "models" / f"{name}.onnx")
    given = model.graph.input[0].name
    feeds = {given: image(*REAL[name])["x"]}
    assert_same(model, feeds, {2: 25, 4: 21}[bits])


def decorated():
    """A model with everything that a converter may lose."""
    model = chain(opset=11)
    graph = model.graph
    node = helper.make_node("Squeeze", ["y"], ["z"], axes=[0], name="last")
    node.doc_string = "why"
    node.metadata_props.add(key="from", value="a module")
    graph.node.append(node)
    graph.node[0].doc_string = "first of all"
    graph.node[0].metadata_props.add(key="scope", value="stem")
    graph.node[0].attribute[0].doc_string = "the rim"
    unknown = helper.make_node("Custom", ["y"], ["own"], name="own", domain="com.acme", level=3)
    graph.node.append(unknown)
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 48, 6, 6]))
    graph.doc_string, graph.name = "a graph", "named"
    graph.input[0].doc_string = "a picture"
    graph.metadata_props.add(key="g", value="1")
    graph.quantization_annotation.add(tensor_name="y")
    model.producer_name, model.producer_version, model.domain = "us", "3", "org.us"
    model.model_version, model.doc_string = 7, "a model"
    model.metadata_props.add(key="names", value="cat, dog")
    model.opset_import.append(helper.make_opsetid("com.acme", 2))
    model.opset_import.append(helper.make_opsetid("local", 1))
    twice = helper.make_node("Add", ["a", "a"], ["b"])
    opsets = [helper.make_opsetid("", 14)]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], [twice], opsets))
    return model


def test_every_field_stays_that_did_not_have_to_change():
    model = decorated()
    new = raised(model)
    assert (new.ir_version, new.opset_import[0].version) == (10, 21)
    assert [n.op_type for n in new.graph.node] == [
        *("Conv", "Relu", "Conv", "Constant", "Squeeze", "Custom")
    ]
    squeeze, old = new.graph.node[4], model.graph.node[3]
    assert (squeeze.name, squeeze.doc_string) == (old.name, old.doc_string)
    assert list(squeeze.metadata_props) == list(old.metadata_props)
    assert [squeeze.input[0], *squeeze.output] == ["y", "z"]
    del new.graph.node[3:5]
    del model.graph.node[3]
    new.ir_version, new.opset_import[0].version = model.ir_version, model.opset_import[0].version
    assert new == model


def test_new_tensors_get_names_that_nothing_has():
    b = Builder(11)
    x = b.input(1, 4, 5)
    for number in range(12):
        x = b.op("Relu", x, output=f"_v_{number}")
    model = b.model(b.op("Squeeze", x, axes=[0]))
    assert_same(model, image(1, 4, 5))


def branch(name, output, axis):
    node = helper.make_node("Unsqueeze", ["t"], [output], axes=[axis], name=name)
    info = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [info])


def test_bodies_are_raised_too():
    b = Builder(11)
    x = b.input(4, 5)
    condition = b.input(name="condition", elem_type=TensorProto.BOOL)
    b.op("Relu", x, output="t")
    branches = {"then_branch": branch("a", "u", 0), "else_branch": branch("b", "v", 2)}
    model = b.model(b.op("If", condition, output="y", **branches))
    for taken in (True, False):
        new = assert_same(model, {**image(4, 5), "condition": np.array(taken)})
    bodies = [a.g for node in new.graph.node for a in node.attribute if a.name.endswith("branch")]
    assert {body.name for body in bodies} == {"a", "b"}
    assert [node.name for body in bodies for node in body.node if node.name] in (
        ["a", "b"],
        ["b", "a"],
    )


def test_big_weights_and_constants_do_not_go_through_the_converter():
    b = Builder(11)
    x = b.input(1, 40, 6, 6)
    big = numpy_helper.from_array(b.values(1, 1, 40, 4, 4).astype(np.float32))
    constant = b.op("Squeeze", b.op("Constant", value=big), axes=[0])
    model = b.model(b.op("Add", b.conv(x, 40, 40), constant))
    new = assert_same(model, image(1, 40, 6, 6))
    before = {t.raw_data for t in tensors(model) if len(t.raw_data) > 1000}
    assert before == {t.raw_data for t in tensors(new) if len(t.raw_data) > 1000}


def test_ir_version_3_loses_the_inputs_that_are_weights():
    """From IR version 4 on they would be defaults that callers may override."""
    model = chain(opset=9, ir_version=3, list_initializers=True)
    new = raised(model)
    assert [value.name for value in new.graph.input] == ["x"]
    session = ort.InferenceSession(new.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x"]


def test_a_new_model_keeps_its_opset():
    model = chain(opset=22)
    before = model.SerializeToString(deterministic=True)
    raise_opset(model, 21, "a test")
    assert model.SerializeToString(deterministic=True) == before


def test_refuses_group_normalization_of_older_meaning():
    b = Builder(18)
    x = b.input(1, 4, 5, 5)
    model = b.model(b.op("GroupNormalization", x, b.random(2), b.random(2), num_groups=2))
    with pytest.raises(onnxfuse.ModelError, match=r"opset 21.*18.*GroupNormalization"):
        raised(model)


def test_refuses_a_resize_that_rounds_up_and_down():
    b = Builder(10)
    scales = b.constant(np.array([1, 1, 0.6, 1.5], np.float32))
    model = b.model(b.op("Resize", b.input(1, 4, 5, 5), scales))
    with pytest.raises(onnxfuse.ModelError, match="Resize rounds up along one axis"):
        raised(model)


def test_refuses_batch_normalization_that_trains():
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("BatchNormalization", ["x", *"abcd"], ["y", "c", "d"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
            + [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "abcd"],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        ),
        opset_imports=[helper.make_opsetid("", 9)],
    )
    with pytest.raises(onnxfuse.ModelError, match="BatchNormalization trains"):
        raised(model)


def dropping(reads_mask):
    """A Dropout with a mask, which is float before opset 10, and its type in the file."""
    b = Builder(9)
    dropped, mask = b.ops("Dropout", b.input(3, 4), outputs=2, ratio=0.3)
    y = b.op("Add", dropped, mask) if reads_mask else b.op("Relu", dropped)
    model = b.model(y)
    info = helper.make_tensor_value_info(mask, TensorProto.FLOAT, [3, 4])
    model.graph.value_info.append(info)
    return model


def test_a_mask_of_dropout_that_nothing_reads_goes():
    new = assert_same(dropping(False), image(3, 4))
    assert not new.graph.value_info


def test_refuses_a_mask_of_dropout_that_is_read():
    with pytest.raises(onnxfuse.ModelError, match="mask of Dropout is another one"):
        raised(dropping(True))


NEWER = {
    "GroupNormalization": (
        21,
        lambda b, x: b.op("GroupNormalization", x, b.random(4), b.random(4), num_groups=2),
    ),
    "mask": (12, lambda b, x: b.op("Where", b.ops("Dropout", x, outputs=2)[1], x, x)),
    "Hardmax": (13, lambda b, x: b.op("Hardmax", x, axis=1)),
}


@pytest.mark.parametrize("name", NEWER)
def test_what_means_the_same_already_is_raised(name):
    own, make = NEWER[name]
    b = Builder(own)
    model = b.model(make(b, b.input(2, 4, 5, 6)))
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, 4, 5, 6])
    model.graph.output[0].type.CopyFrom(kind)  # onnx infers none for GroupNormalization
    new = assert_same(model, image(2, 4, 5, 6), 25)
    assert len(new.graph.node) <= 2


def test_sparse_initializers_stay():
    b = Builder(11)
    y = b.op("MatMul", b.op("Softmax", b.input(2, 3, 4), axis=1), "s")
    model = b.model(y)
    values = numpy_helper.from_array(np.array([2, 3], np.float32), "s")
    indices = numpy_helper.from_array(np.array([1, 7]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 5]))
    new = raised(model)
    assert new.graph.sparse_initializer == model.graph.sparse_initializer
    names = [output.name for output in model.graph.output]
    before, after = (run_for(m, names, image(2, 3, 4), False) for m in (model, new))
    assert np.array_equal(before[0], after[0])


def test_refuses_functions_whose_operators_changed():
    model = decorated()
    squeeze = helper.make_node("Squeeze", ["a"], ["b"], axes=[0])
    del model.functions[0].node[:]
    model.functions[0].node.append(squeeze)
    model.functions[0].opset_import[0].version = 11
    with pytest.raises(onnxfuse.ModelError, match="Squeeze in its function 'Twice'"):
        raised(model)


def test_refuses_what_the_converter_cannot_do():
    b = Builder(11)
    x = b.input(3)
    index = numpy_helper.from_array(np.array([1]), "i")
    value = numpy_helper.from_array(np.array([2], np.float32), "v")
    sparse = helper.make_sparse_tensor(value, index, [3])
    model = b.model(b.op("Add", x, b.op("Constant", sparse_value=sparse)))
    with pytest.raises(onnxfuse.ModelError, match=r"opset 21.*cannot be raised"):
        raised(model)


def test_refuses_an_opset_that_onnx_does_not_know():
    with pytest.raises(onnxfuse.ModelError, match="knows up to"):
        raised(chain(), 99)
