"""BatchNormalization of every opset, and what must not be taken for one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import assert_agrees, feeds_for, left_alone, optimized, refusal, run

C = 4
SIZES = ({"n": 2, "h": 4, "w": 4}, {"n": 1, "h": 7, "w": 3})
OPSETS = pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 17, 21, 22])


def conv_norm(b: Builder, **attributes):
    x = b.input("n", C, "h", "w")
    return b.batch_norm(b.conv(x, C, C, (3, 3), pads=[1, 1, 1, 1]), C, output="y", **attributes)


@OPSETS
def test_folds_norm_of_every_opset(opset):
    b = Builder(opset)
    folded = optimized(b.model(conv_norm(b)), *SIZES)
    assert folded.ops == {"Conv": 1}


@pytest.mark.parametrize("epsilon", [None, 1e-2, 0.5, 1e-7])
def test_folds_with_its_own_epsilon(epsilon):
    b = Builder(seed=3)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (1, 1))
    statistics = [b.random(C), b.random(C), b.random(C), b.positive(C, low=1e-3, high=0.02)]
    given = {} if epsilon is None else {"epsilon": epsilon}
    folded = optimized(b.model(b.op("BatchNormalization", y, *statistics, **given)), *SIZES)
    assert folded.ops == {"Conv": 1}


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_folds_norm_of_every_rank(rank):
    b = Builder()
    x = b.input("n", C, *"abc"[:rank])
    y = b.conv(x, C, 6, (2,) * rank) if rank else b.op("Gemm", x, b.random(C, 6), b.random(6))
    folded = optimized(b.model(b.batch_norm(y, 6)), {"n": 3, "a": 4, "b": 2, "c": 5})
    assert folded.ops.total() == 1


def test_folds_chain_of_norms():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.batch_norm(b.batch_norm(b.conv(x, C, C, (1, 1)), C, epsilon=1e-2), C)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_folds_norm_in_front_of_unpadded_conv():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(b.batch_norm(x, C), C, 6, (3, 3))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_refuses_norm_in_front_of_padded_conv():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(b.batch_norm(x, C), C, 6, (3, 3), pads=[1, 1, 1, 1])
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops.total() == 2


def test_refuses_training_mode():
    b = Builder(17)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (3, 3))
    names = [b.random(C), b.random(C), b.random(C), b.positive(C)]
    out, mean, var = b.ops(
        "BatchNormalization", y, *names, outputs=["y", "mean", "var"], training_mode=1
    )
    folded = optimized(b.model(out, mean, var), *SIZES)
    assert folded.ops == {"Conv": 1, "BatchNormalization": 1}
    assert "model.eval()" in folded.reasons


def test_refuses_training_mode_of_an_exported_model():
    """As torch writes it: the running statistics are made, and nobody reads them."""
    b = Builder(15)
    x = b.input("n", C, "h", "w")
    names = [b.random(C), b.random(C), b.random(C), b.positive(C)]
    y = b.conv(x, C, C, (3, 3))
    outputs = ["y", "mean", "var"]
    b.ops("BatchNormalization", y, *names, outputs=outputs, training_mode=1)
    folded = optimized(b.model("y"), *SIZES)
    assert folded.ops == {"Conv": 1, "BatchNormalization": 1}
    assert "model.eval()" in folded.reasons


@pytest.mark.parametrize("opset", [7, 9])
def test_refuses_training_form_of_old_opsets(opset):
    """Five outputs mean training."""
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (3, 3))
    names = [b.random(C), b.random(C), b.random(C), b.positive(C)]
    outputs = ["y", "mean", "var", "saved_mean", "saved_var"]
    b.ops("BatchNormalization", y, *names, outputs=outputs)
    model = b.model("y", "mean", "var")
    result = onnxfuse.optimize(model)
    assert {n.op_type for n in result.model.graph.node} == {"Conv", "BatchNormalization"}
    assert any("model.eval()" in r.reason for r in result.report.refusals)


@pytest.mark.parametrize("opset", [7, 8])
def test_refuses_statistics_per_position(opset):
    b = Builder(opset)
    x = b.input(1, C, 5, 5)
    y = b.conv(x, C, C, (3, 3))
    names = [b.random(C * 9), b.random(C * 9), b.random(C * 9), b.positive(C * 9)]
    y = b.op("BatchNormalization", y, *names, spatial=0, output="y")
    graph = b.model("y")
    result = onnxfuse.optimize(graph)
    assert [n.op_type for n in result.model.graph.node] == ["Conv", "BatchNormalization"]
    assert any("per position" in r.reason for r in result.report.refusals)


@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_refuses_computed_statistics(position):
    b = Builder()
    x = b.input("n", C, "h", "w")
    names = [b.conv(x, C, C, (3, 3)), b.random(C), b.random(C), b.random(C), b.positive(C)]
    given = b.input(C, name="given")
    names[position] = b.op("Abs", given)
    folded = optimized(b.model(b.op("BatchNormalization", *names)), *SIZES)
    assert folded.ops == {"Conv": 1, "Abs": 1, "BatchNormalization": 1}
    assert "not constant" in folded.reasons


@pytest.mark.parametrize("which", ["weight", "bias", "scale", "shift", "mean", "variance"])
def test_refuses_overridable_initializer(which):
    """From IR version 4 on an initializer that is an input too is only a default value."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Conv", x, b.random(C, C, 3, 3, name="weight"), b.random(C, name="bias"))
    names = [b.random(C, name=name) for name in ("scale", "shift", "mean")]
    names.append(b.constant(b.rng.uniform(0.3, 1.7, C), "variance"))
    model = b.model(b.op("BatchNormalization", y, *names, output="y"))
    shape = [C, C, 3, 3] if which == "weight" else [C]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(which, onnx.TensorProto.FLOAT, shape)
    )
    folded = optimized(model, *SIZES)
    assert folded.ops == {"Conv": 1, "BatchNormalization": 1}
    feeds = feeds_for(model, SIZES[0])
    other = b.values(*shape)
    feeds[which] = np.asarray(abs(other) if which == "variance" else other, dtype=np.float32)
    assert_agrees(model, folded.model, feeds)
    assert not np.array_equal(
        run(folded.model, feeds)[0], run(folded.model, feeds_for(model, SIZES[0]))[0]
    )


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_folds_ir_version_3_and_keeps_it_valid(opset):
    """Before IR version 4 every initializer is listed as an input."""
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    wide = b.batch_norm(b.conv(x, C, C, (3, 3), pads=[1, 1, 1, 1]), C)
    y = b.op("Relu", b.op("Add", wide, b.batch_norm(x, C)))
    y = b.op("Reshape", y, b.constant([0, -1]))
    model = b.model(y, ir_version=3, list_initializers=True)
    folded = optimized(model, *SIZES)
    assert folded.ops == {"Conv": 1, "Relu": 1, "Reshape": 1}
    assert len(folded.model.graph.input) == 1 + len(folded.model.graph.initializer)


def test_folds_norm_with_infinite_variance():
    """scale / sqrt(inf) is zero: the channel is constant, and the fold is exact."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    variance = b.constant(np.asarray([0.5, np.inf, 2.0, 0.7]))
    names = [b.random(C), b.random(C), b.random(C), variance]
    y = b.op("BatchNormalization", b.conv(x, C, C, (1, 1)), *names)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_refuses_norm_with_negative_variance():
    b = Builder()
    x = b.input("n", C, "h", "w")
    names = [b.random(C), b.random(C), b.random(C), b.constant([0.5, -0.5, 2.0, 0.7])]
    y = b.op("BatchNormalization", b.conv(x, C, C, (1, 1)), *names)
    result = onnxfuse.optimize(b.model(y))
    assert {n.op_type for n in result.model.graph.node} == {"Conv", "BatchNormalization"}
    assert any("not finite" in r.reason for r in result.report.refusals)


@pytest.mark.parametrize("shapes", [[(C, 1)] * 4, [(C,), (1,), (C,), (C,)], [(0,)] * 4, [()] * 4])
def test_refuses_statistics_that_do_not_fit(shapes):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("BatchNormalization", b.conv(x, C, C, (3, 3)), *(b.positive(*s) for s in shapes))
    model = b.model(y)
    left_alone(model)
    found = [list(shape) for shape in shapes]
    assert refusal(model, "BatchNormalization") == f"its statistics have shapes {found}"
