"""What pays on some machines only: exact wherever it is made, and made by `tune` alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import onnxfuse
from onnxfuse.pipeline import FEWER_NODES, TRIALS, optimize_with
from tests.lift.building import Builder
from tests.lift.comparing import run, truth

WRITTEN_OUT, AS_TRANSPOSES, SOONER, MERGED, SPLIT = (
    "softmaxes written out",
    "shuffles as transposes",
    "phases sooner",
    "merges sooner",
    "splits sooner",
)


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def tried(trial: str, model: ModelProto, *shapes: tuple[int, ...], **options) -> list[str]:
    """The operators with a trial; what they compute is compared."""
    result = optimize_with(trial, model, **options)
    onnx.checker.check_model(result.model, full_check=True)
    for shape in shapes:
        x = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
        for actual, expected in zip(run(result.model, x), truth(model, x), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
            assert actual.shape == expected.shape
    return operators(result.model)


def refused(trial: str, model: ModelProto, **options) -> None:
    assert operators(optimize_with(trial, model, **options).model) == operators(model)


def test_there_are_six():
    assert TRIALS == (FEWER_NODES, WRITTEN_OUT, AS_TRANSPOSES, SOONER, MERGED, SPLIT)


# Softmaxes written out ---------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [13, 17, 18, 22])
@pytest.mark.parametrize("axis", [1, -3, 2])
def test_a_softmax(opset, axis):
    b = Builder(opset)
    model = b.model(b.op("Softmax", b.input("n", 5, "h", "w"), axis=axis))
    found = tried(WRITTEN_OUT, model, (2, 5, 3, 4), (1, 5, 1, 1))
    assert found == ["ReduceMax", "Sub", "Exp", "ReduceSum", "Div"]
    assert operators(onnxfuse.optimize(model).model) == ["Softmax"]


def test_large_numbers_do_not_overflow():
    b = Builder()
    x = np.array([[[1e30, -1e30], [3e38, 5.0]]], np.float32)
    made = optimize_with(WRITTEN_OUT, b.model(b.op("Softmax", b.input("n", 2, 2), axis=1)))
    np.testing.assert_array_equal(run(made.model, {"x": x})[0], [[[0, 0], [1, 1]]])


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_softmaxes_that_stay(op_type):
    for axis, shape in ((-1, ("n", 5, "w")), (1, ("n", 5, 1)), (2, ("n", 5, "w"))):
        b = Builder()
        refused(WRITTEN_OUT, b.model(b.op(op_type, b.input(*shape), axis=axis)))
    b = Builder(12)
    refused(WRITTEN_OUT, b.model(b.op(op_type, b.input("n", 5, "w"), axis=1)))
    b = Builder()
    model = b.model(b.op(op_type, b.input("n", 5, "w"), axis=1))
    refused(WRITTEN_OUT, model, skip=["Softmax"])
    if op_type == "LogSoftmax":
        refused(WRITTEN_OUT, model)


# Shuffles as transposes --------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 13, 22])
@pytest.mark.parametrize("mode", ["DCR", "CRD", None])
@pytest.mark.parametrize("size", [2, 3])
def test_a_shuffle(opset, mode, size):
    b = Builder(opset)
    given = {"mode": mode} if mode else {}
    x = b.input("n", 2 * size * size, 3, 5)
    model = b.model(b.op("DepthToSpace", x, blocksize=size, **given))
    found = tried(AS_TRANSPOSES, model, (2, 2 * size * size, 3, 5))
    assert found == ["Reshape", "Transpose", "Reshape", "Transpose", "Reshape"]
    assert operators(onnxfuse.optimize(model).model) == ["DepthToSpace"]


def test_a_shuffle_of_no_images():
    b = Builder()
    model = b.model(b.op("DepthToSpace", b.input("n", 8, 3, 5), blocksize=2))
    made = optimize_with(AS_TRANSPOSES, model).model
    assert run(made, {"x": np.zeros((0, 8, 3, 5), np.float32)})[0].shape == (0, 2, 6, 10)


def test_before_there_was_a_mode():
    b = Builder(9)
    model = b.model(b.op("DepthToSpace", b.input(2, 8, 3, 5), blocksize=2))
    assert tried(AS_TRANSPOSES, model, (2, 8, 3, 5)).count("Transpose") == 2


@pytest.mark.parametrize(
    "shape", [("n", 8, "h", 5), ("n", 8, 3, "w"), ("n", "c", 3, 5), ("n", 8, 0, 5)]
)
def test_shuffles_of_sizes_that_are_not_known_or_none(shape):
    b = Builder()
    refused(AS_TRANSPOSES, b.model(b.op("DepthToSpace", b.input("n", *shape), blocksize=2)))


def test_a_shuffle_of_channels_that_make_no_blocks():
    b = Builder()
    refused(AS_TRANSPOSES, b.model(b.op("DepthToSpace", b.input("n", 6, 3, 5), blocksize=2)))


# Phases sooner, fewer nodes ----------------------------------------------------------------------


def test_phases_that_save_too_little_by_default():
    b = Builder()
    sizes = b.constant(np.array([1.0, 1.0, 2.0, 2.0]))
    x = b.op(
        "Resize",
        b.input(1, 16, 32, 32),
        "",
        sizes,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    model = b.model(b.conv(x, 16, 16, pads=[1, 1, 1, 1]))
    assert operators(onnxfuse.optimize(model).model) == ["Resize", "Conv"]
    assert tried(SOONER, model, (1, 16, 32, 32)).count("Conv") == 4


def test_a_fold_that_costs_more_than_it_saves():
    b = Builder()
    y = b.conv(b.conv(b.input("n", 64, 32, 32), 64, 4, (1, 1)), 4, 64, (1, 1))
    model = b.model(b.op("Relu", y))
    assert operators(onnxfuse.optimize(model).model) == ["Conv", "Conv", "Relu"]
    assert tried(FEWER_NODES, model, (2, 64, 32, 32)) == ["Conv", "Relu"]
