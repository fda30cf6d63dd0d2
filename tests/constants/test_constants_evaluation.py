import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from tests.constants.building import (
    ADD,
    FLOAT,
    GRID,
    ROW,
    Folded,
    build,
    fold,
    node,
    value,
)


def test_evaluates_what_depends_on_constants_alone():
    nodes = [
        node("Constant", "", "c", value=numpy_helper.from_array(ROW)),
        node("Mul", "c w", "a"),
        node("MatMul", "a grid", "b"),
        node("Transpose", "grid", "t", perm=[1, 0]),
        node("Relu", "x", "r"),
        node("Gemm", "r t b", "y"),
    ]
    folded = fold(build(nodes, {"w": ROW, "grid": GRID}))
    assert folded.operators == ["Relu", "Gemm"]
    assert folded.weights.keys() == {"t", "b"}
    np.testing.assert_array_equal(folded.weights["t"], GRID.T)


def test_no_node_means_no_session(monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    Folded(build([node("Constant", "", "k", value_float=1.5), ADD]))


def test_several_outputs_of_one_node():
    nodes = [node("Split", "w", "a b", axis=0), node("Add", "x a", "p"), node("Mul", "p b", "y")]
    folded = fold(build(nodes, {"w": GRID[:2]}, opset=11))
    assert folded.operators == ["Add", "Mul"]
    assert folded.weights.keys() == {"a", "b"}


def test_optional_inputs_and_outputs():
    nodes = [node("Clip", "w", "a"), node("Slice", "grid s e", "b"), node("Add", "x b", "p")]
    nodes[0].input.extend(["", "top"])
    nodes[1].input.extend(["", "step"])
    split = node("MaxPool", "image", "m", kernel_shape=[2, 2])
    split.output.append("")
    nodes += [split, node("ReduceMax", "m", "h", keepdims=0), node("Sum", "p a h", "y")]
    weights = {"w": ROW, "grid": GRID, "s": np.array([1, 0]), "e": np.array([2, 4])}
    weights |= {"top": np.float32(1), "step": np.array([1, 1]), "image": GRID.reshape(1, 1, 4, 4)}
    folded = fold(build(nodes, weights))
    assert folded.operators == ["Add", "Sum"]
    assert folded.weights.keys() == {"a", "b", "h"}


def test_an_output_of_the_graph_keeps_its_name():
    folded = fold(build([node("Neg", "w", "y"), node("Relu", "x", "z")], {"w": ROW}, outputs="yz"))
    assert folded.operators == ["Relu"]
    np.testing.assert_array_equal(folded.weights["y"], -ROW)


@pytest.mark.parametrize("made", ["Neg", "Constant"])
def test_before_ir_version_4_an_output_keeps_its_node(made):
    inputs = [value("x", ("N", 4)), value("w", (4,))]
    maker = node("Neg", "w", "y")
    if made == "Constant":
        maker = node("Constant", "", "y", value=numpy_helper.from_array(ROW))
    nodes = [maker, node("Neg", "w", "v"), node("Add", "x v", "z")]
    folded = fold(build(nodes, {"w": ROW}, inputs, "yz", ir_version=3, opset=8))
    assert folded.operators == [made, "Add"]
    assert "v" in {info.name for info in folded.model.graph.input}


def test_values_that_a_caller_may_override_are_left_alone():
    inputs = [value("x", ("N", 4)), value("w", (4,))]
    nodes = [node("Neg", "w", "k"), node("Add", "x k", "p"), node("Identity", "w", "q")]
    nodes.append(node("Add", "p q", "y"))
    folded = fold(build(nodes, {"w": ROW}, inputs))
    assert folded.operators == ["Neg", "Add", "Identity", "Add"]


def test_tensors_that_shall_be_kept_keep_their_nodes():
    nodes = [node("Neg", "w", "a"), node("Neg", "a", "b"), node("Add", "x b", "y")]
    assert fold(build(nodes, {"w": ROW}), keep=["a"]).operators == ["Neg", "Neg", "Add"]


def test_nodes_that_nobody_reads_are_not_evaluated(monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    Folded(build([node("Neg", "w", "dead"), node("Relu", "x", "y")], {"w": ROW}))


RANDOM = [
    node("RandomNormal", "", "k", shape=[4]),
    node("RandomUniform", "", "k", shape=[4]),
    node("RandomNormalLike", "w", "k"),
    node("RandomUniformLike", "w", "k"),
    node("Bernoulli", "h", "k"),
    node("Dropout", "w half yes", "k"),
]


@pytest.mark.parametrize("random", RANDOM, ids=lambda n: n.op_type)
def test_random_operators_are_left_alone(random):
    weights = {"w": ROW, "h": np.full(4, 0.5, np.float32), "half": np.float32(0.5)}
    weights["yes"] = np.array(True)
    folded = Folded(build([random, node("Neg", "k", "n"), node("Add", "x n", "y")], weights))
    assert folded.operators == [random.op_type, "Neg", "Add"]


def test_dropout_in_inference_form_is_evaluated():
    assert fold(build([node("Dropout", "w", "k"), ADD], {"w": ROW})).operators == ["Add"]


def test_quantized_weights_stay_quantized():
    weights = {"w": np.array([1, -3, 5, 7], np.int8), "s": np.float32(0.5), "z": np.int8(1)}
    nodes = [node("DequantizeLinear", "w s z", "k"), ADD]
    assert fold(build(nodes, weights)).operators == ["DequantizeLinear", "Add"]


def test_operators_outside_the_standard_are_left_alone():
    gelu = node("Gelu", "w", "k", domain="com.microsoft")
    model = build([gelu, ADD], {"w": ROW})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert fold(model).operators == ["Gelu", "Add"]


def test_functions_of_the_model_are_left_alone():
    function = helper.make_function(
        "org.example", "Neg", ["a"], ["b"], [node("Abs", "a", "b")], [helper.make_opsetid("", 17)]
    )
    model = build([node("Neg", "w", "k", domain="org.example"), ADD], {"w": ROW})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    assert fold(model).operators == ["Neg", "Add"]


def test_operators_that_the_model_redefines_are_left_alone():
    function = helper.make_function(
        "", "Neg", ["a"], ["b"], [node("Abs", "a", "b")], [helper.make_opsetid("", 17)]
    )
    model = build([node("Neg", "w", "k"), node("Sqrt", "w", "s"), node("Sum", "x k s", "y")])
    model.graph.initializer.append(numpy_helper.from_array(ROW, "w"))
    model.functions.append(function)
    assert Folded(model).operators == ["Neg", "Sum"]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_types_that_the_runtime_cannot_return_are_left_alone(dtype):
    nodes = [node("Cast", "w", "k", to=FLOAT), node("Identity", "w", "v"), ADD]
    nodes.append(node("Cast", "v", "u", to=FLOAT))
    nodes.append(node("Add", "y u", "z"))
    model = build(nodes, {"w": np.arange(4).astype(dtype)}, outputs="z", opset=21, ir_version=10)
    folded = fold(model)
    assert folded.operators == ["Cast", "Add", "Cast", "Add"]
    assert folded.weights["v"].dtype == dtype
