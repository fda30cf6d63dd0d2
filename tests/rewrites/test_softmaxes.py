"""Softmaxes go along the last axis, where a Transpose beside them pays for it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.checking import body_of_relu, refused

SIZES = ({"n": 1, "l": 5}, {"n": 2, "l": 3})


def perms(folded) -> list[list[int]]:
    nodes = folded.model.graph.node
    return [list(n.attribute[0].ints) for n in nodes if n.op_type == "Transpose"]


@pytest.mark.parametrize("opset", [13, 18, 22])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_behind_a_transpose(opset, op_type):
    b = Builder(opset)
    y = b.op("Transpose", b.input("n", 4, 16, "l"), perm=[0, 2, 1, 3])
    folded = optimized(b.model(b.op(op_type, y, axis=1)), *SIZES)
    assert folded.ops == {op_type: 1, "Transpose": 2}
    assert perms(folded) == [[0, 1, 3, 2], [0, 3, 1, 2]]
    assert folded.node(op_type).attribute[0].i == -1
    (fold,) = folded.report.folds
    assert fold.step == "softmaxes"
    assert fold.certificate.error < 1e-15
    assert len(fold.replaced) == 2
    assert fold.formula == f"y = {op_type} of x along axis 2, which is turned to the end"


def test_a_transpose_that_is_not_needed_any_more():
    b = Builder()
    y = b.op("Transpose", b.input("n", 4, "l", 16), perm=[0, 3, 1, 2])
    folded = optimized(b.model(b.op("Softmax", y, axis=-3)), *SIZES)
    assert folded.ops == {"Softmax": 1, "Transpose": 1}
    assert perms(folded) == [[0, 3, 1, 2]]


def test_in_front_of_a_transpose():
    b = Builder()
    y = b.op("Softmax", b.op("Sin", b.input("n", 6, 3, "l")), axis=1)
    folded = optimized(b.model(b.op("Sin", b.op("Transpose", y, perm=[2, 0, 1, 3]))), *SIZES)
    assert folded.ops == {"Softmax": 1, "Transpose": 2, "Sin": 2}
    assert perms(folded) == [[0, 2, 3, 1], [1, 0, 3, 2]]


def test_between_transposes():
    b = Builder()
    y = b.op("Transpose", b.op("Sin", b.input("n", 6, 3, "l")), perm=[1, 0, 3, 2])
    y = b.op("Transpose", b.op("Softmax", y, axis=2), perm=[3, 0, 1, 2])
    folded = optimized(b.model(b.op("Sin", y)), *SIZES)
    assert folded.ops == {"Softmax": 1, "Transpose": 2, "Sin": 2}
    assert perms(folded) == [[1, 0, 2, 3], [2, 0, 1, 3]]


def test_between_transposes_that_undo_each_other():
    b = Builder()
    y = b.op("Transpose", b.op("Sin", b.input("n", 7, "l")), perm=[0, 2, 1])
    y = b.op("Transpose", b.op("Softmax", y, axis=1), perm=[0, 2, 1])
    folded = optimized(b.model(b.op("Sin", y)), *SIZES)
    assert folded.ops == {"Softmax": 1, "Sin": 2}


def test_the_distribution_of_a_detector():
    b = Builder()
    y = b.op("Reshape", b.input("n", 64, "l"), b.constant([0, 4, 16, -1]))
    y = b.op("Softmax", b.op("Transpose", y, perm=[0, 2, 1, 3]), axis=1)
    bins = b.constant(np.arange(16.0).reshape(1, 16, 1, 1))
    y = b.op("Reshape", b.op("Conv", y, bins, kernel_shape=[1, 1]), b.constant([0, 4, -1]))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops["Softmax"] == 1
    assert perms(folded)[0] == [0, 1, 3, 2]


def test_half_precision():
    b = Builder(18, TensorProto.FLOAT16)
    y = b.op("Transpose", b.input("n", 3, 4, "l"), perm=[0, 2, 1, 3])
    folded = optimized(b.model(b.op("Softmax", y, axis=1)), *SIZES)
    assert folded.ops == {"Softmax": 1, "Transpose": 2}


def test_an_output_keeps_its_name():
    b = Builder()
    y = b.op("Transpose", b.input("n", 4, "l"), perm=[0, 2, 1])
    folded = optimized(b.model(b.op("Softmax", y, axis=1, output="probabilities")), *SIZES)
    assert folded.model.graph.output[0].name == "probabilities"
    assert folded.ops == {"Softmax": 1, "Transpose": 1}


def softmax_behind(b: Builder, *shape: int | str, perm: list[int], axis: int = 1) -> str:
    return b.op("Softmax", b.op("Transpose", b.input(*shape), perm=perm), axis=axis)


@pytest.mark.parametrize("skip", ["softmaxes", "Softmax", "Transpose"])
def test_what_is_to_be_left_out(skip):
    b = Builder()
    refused(b, softmax_behind(b, "n", 4, 16, "l", perm=[0, 2, 1, 3]), skip=[skip])


def test_other_operators_along_an_axis():
    b = Builder()
    y = b.op("Transpose", b.input("n", 4, 16, "l"), perm=[0, 2, 1, 3])
    refused(b, b.op("Hardmax", y, axis=1))


def test_many_axes():
    b = Builder()
    y = b.op("Transpose", b.input(2, 2, *[1] * 7, 3), perm=[1, 0, *range(2, 10)])
    folded = optimized(b.model(b.op("Softmax", y, axis=1)), {})
    assert folded.ops == {"Softmax": 1, "Transpose": 2}


def test_the_last_axis():
    b = Builder()
    refused(b, softmax_behind(b, "n", 4, "l", perm=[0, 2, 1], axis=-1))
    b = Builder()
    refused(b, b.op("Softmax", b.op("Transpose", b.input("n", 4, "l"), perm=[0, 2, 1])))


def test_nothing_behind_the_axis():
    b = Builder()
    refused(b, softmax_behind(b, "n", 1, 4, 1, perm=[0, 2, 1, 3]))


def test_all_axes_from_one_on():
    b = Builder(12)
    refused(b, softmax_behind(b, "n", 4, "l", perm=[0, 2, 1]))


def test_no_transpose_beside_it():
    b = Builder()
    refused(b, b.op("Sin", b.op("Softmax", b.op("Sin", b.input("n", 4, "l")), axis=1)))


def test_somebody_else_reads_the_transposed():
    b = Builder()
    y = b.op("Transpose", b.op("Sin", b.input("n", 4, "l")), perm=[0, 2, 1])
    refused(b, b.op("Add", b.op("Softmax", y, axis=1), b.op("Cos", y)))


@pytest.mark.parametrize("other", ["Cos", "output", "keep", "body"])
def test_somebody_else_reads_the_softmax(other):
    b = Builder()
    y = b.op("Softmax", b.op("Sin", b.input("n", 4, "l")), axis=1, output="x_")
    outputs = [b.op("Sin", b.op("Transpose", y, perm=[0, 2, 1]))]
    options = {}
    if other == "Cos":
        outputs.append(b.op("Cos", y))
    elif other == "output":
        outputs.append(y)
    elif other == "keep":
        options["keep"] = [y]
    else:
        body = body_of_relu()
        body.node[0].input[0] = y
        body.output[0].name = body.node[0].output[0]
        chosen = b.op("ReduceMax", b.input(1, name="c"), keepdims=0)
        condition = b.op("Greater", chosen, b.constant(0.0))
        outputs.append(b.op("If", condition, then_branch=body, else_branch=body))
    model = b.model(*outputs)
    result = onnxfuse.optimize(model, **options)
    assert not [fold for fold in result.report.folds if fold.step == "softmaxes"]


def test_several_transposes_behind():
    b = Builder()
    y = b.op("Softmax", b.op("Sin", b.input("n", 4, "l")), axis=1)
    turned = [b.op("Transpose", y, perm=perm) for perm in ([0, 2, 1], [1, 0, 2])]
    refused(b, b.op("Concat", *(b.op("Sin", b.op("Flatten", t)) for t in turned), axis=1))


def test_nobody_reads_it_but_a_kept_name():
    b = Builder()
    b.op("Softmax", b.op("Sin", b.input("n", 4, "l")), axis=1, output="kept")
    result = onnxfuse.optimize(b.model(b.op("Cos", "x")), keep=["kept"])
    assert not result.report.folds


def test_an_unknown_rank():
    b = Builder()
    y = b.op("Reshape", b.input("n", 4, "l"), b.input("r", name="s", elem_type=TensorProto.INT64))
    refused(b, b.op("Softmax", b.op("Transpose", b.op("Sin", y)), axis=1))
