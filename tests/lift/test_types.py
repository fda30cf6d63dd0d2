"""Element types: float16, bfloat16, float64, mixed, integers, and values that are not finite."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized, truth

C = 4
SIZES = ({"n": 1, "h": 4, "w": 4}, {"n": 2, "h": 5, "w": 7})
PADS = [1, 1, 1, 1]


def block(b: Builder) -> str:
    x = b.input("n", C, "h", "w")
    y = b.batch_norm(b.conv(x, C, C, pads=PADS), C)
    y = b.op("Sum", y, b.conv(x, C, C, (1, 1)), x)
    return b.op("Div", y, b.random(C, 1, 1))


def types_of(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def test_folds_float16():
    b = Builder(15, TensorProto.FLOAT16)
    folded = optimized(b.model(block(b)), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert types_of(folded.model) == {TensorProto.FLOAT16}


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_folds_types_without_kernels_in_the_runtime(kind):
    """Held against the reference implementation; a weight is rounded to its type once."""
    b = Builder(22, kind)
    model = b.model(block(b))
    result = onnxfuse.optimize(model)
    onnx.checker.check_model(result.model, full_check=True)
    assert [n.op_type for n in result.model.graph.node] == ["Conv"]
    assert types_of(result.model) == {kind}
    epsilon = {TensorProto.DOUBLE: 2.0**-52, TensorProto.BFLOAT16: 2.0**-8}[kind]
    for size in SIZES:
        feeds = feeds_for(model, size)
        (expected,), (actual,) = truth(model, feeds), truth(result.model, feeds)
        assert np.abs(actual - expected).max() <= 16 * epsilon * np.abs(expected).max()


def test_rounds_the_folded_weight_once():
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    weight, scale = b.values(C, C, 1, 1), b.values(C, 1, 1)
    y = b.op("Mul", b.op("Conv", x, b.constant(weight)), b.constant(scale))
    folded = optimized(b.model(y), *SIZES)
    exact = weight.astype(np.float16).astype(float) * scale.astype(np.float16)[..., None].astype(
        float
    )
    np.testing.assert_array_equal(folded.weight(), exact.astype(np.float16))


def test_folds_past_an_overflow_in_between():
    """The product of the two scales fits although one of them does not."""
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    y = b.op("Mul", b.op("Conv", x, b.constant(b.values(C, C, 1, 1) * 2000.0)), b.constant(300.0))
    result = onnxfuse.optimize(b.model(b.op("Mul", y, b.constant(1e-3))))
    assert [n.op_type for n in result.model.graph.node] == ["Conv"]


def test_folds_matrices_of_float64():
    kind = TensorProto.DOUBLE
    b = Builder(17, kind)
    x = b.input("n", 5)
    y = b.batch_norm(b.op("Gemm", x, b.random(5, 6), b.random(6)), 6)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Gemm": 1}
    assert types_of(folded.model) == {kind}


def test_folds_float32_norm_into_float16_conv():
    """Opset 15: the statistics have a type of their own."""
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, pads=PADS)
    values = [b.values(C), b.values(C), b.values(C), np.abs(b.values(C))]
    names = [b.constant(v, elem_type=TensorProto.FLOAT) for v in values]
    folded = optimized(b.model(b.op("BatchNormalization", y, *names)), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert types_of(folded.model) == {TensorProto.FLOAT16}


def test_folds_float16_norm_into_float32_conv():
    """The result keeps the type of what is normalized."""
    b = Builder(15)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, pads=PADS)
    values = [b.values(C), b.values(C), b.values(C), np.abs(b.values(C))]
    names = [b.constant(v, elem_type=TensorProto.FLOAT16) for v in values]
    model = b.model(b.op("BatchNormalization", y, *names))
    folded = optimized(model, *SIZES, original_runs=False)
    assert folded.ops == {"Conv": 1}
    assert types_of(folded.model) == {TensorProto.FLOAT}


@pytest.mark.parametrize("where", ["weight", "bias"])
def test_refuses_overflow_of_float16_in_one_number(where):
    """A norm of small variance: every other number of the fold fits."""
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    weight, bias = b.values(C, C, 3, 3), b.values(C)
    (weight if where == "weight" else bias).reshape(-1)[1] = 900.0
    y = b.op("Conv", x, b.constant(weight), b.constant(bias), pads=PADS)
    variance = b.constant(np.full(C, 1e-4))
    y = b.op("BatchNormalization", y, b.random(C), b.random(C), b.random(C), variance)
    result = onnxfuse.optimize(b.model(y))
    assert [n.op_type for n in result.model.graph.node] == ["Conv", "BatchNormalization"]
    assert any("overflows" in r.reason for r in result.report.refusals)


def test_refuses_overflow_of_float16():
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    y = b.op("Conv", x, b.constant(b.values(C, C, 1, 1) * 2000.0))
    result = onnxfuse.optimize(b.model(b.op("Mul", y, b.constant(300.0))))
    assert [n.op_type for n in result.model.graph.node] == ["Conv", "Mul"]
    assert any("overflows" in r.reason for r in result.report.refusals)


def test_folds_the_rest_where_one_fold_overflows():
    """The Mul at the end overflows the weight; the norm in front of it still folds."""
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    y = b.batch_norm(b.op("Conv", x, b.constant(b.values(C, C, 1, 1) * 200.0), b.random(C)), C)
    y = b.op("Mul", y, b.constant(3000.0))
    result = onnxfuse.optimize(b.model(y))
    assert len(result.model.graph.node) == 2
    assert any("overflows" in r.reason for r in result.report.refusals)


@pytest.mark.parametrize("scale", [3e-4, 1e-5])
def test_refuses_underflow_of_float16(scale):
    """A folded weight of 1e-7 is a denormal of float16 without a digit, and one of 1e-9 is zero."""
    b = Builder(15, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    y = b.op("Conv", x, b.constant(b.values(C, C, 1, 1) * 3e-4))
    model = b.model(b.op("Mul", y, b.constant(scale)))
    feeds = {"x": feeds_for(model, SIZES[0])["x"] * np.float16(1e4)}
    optimized(model, feeds=[feeds])


def test_leaves_integers_alone():
    b = Builder()
    x = b.input("n", C, "h", "w", elem_type=TensorProto.INT64)
    y = b.op("Add", b.op("Mul", x, b.constant([[[3]], [[5]], [[7]], [[9]]])), b.constant(2))
    z = b.conv(b.input("n", C, "h", "w", name="z"), C, C, (1, 1))
    cast = b.op("Cast", y, to=TensorProto.FLOAT)
    model = b.model(b.op("Add", b.op("Add", cast, cast), z), y, types={y: TensorProto.INT64})
    folded = optimized(model, *SIZES)
    assert folded.ops["Mul"] == 1
    assert folded.ops["Cast"] == 1


def test_leaves_cast_between_float_types():
    b = Builder(17)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (1, 1))
    y = b.op("Cast", y, to=TensorProto.FLOAT16)
    y = b.op("Cast", y, to=TensorProto.FLOAT)
    folded = optimized(b.model(b.batch_norm(y, C)), *SIZES, truth_runs=False)
    assert folded.ops == {"Conv": 1, "Cast": 2, "BatchNormalization": 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["weight", "bias", "scale", "mean", "mul", "pad"])
def test_refuses_weights_that_are_not_finite(bad, where):
    def maybe(value: np.ndarray, name: str) -> str:
        if name == where:
            value.reshape(-1)[1] = bad
        return b.constant(value)

    b = Builder()
    x = b.input("n", C, "h", "w")
    pad = b.constant(np.asarray(bad if where == "pad" else 0.5))
    y = b.op("Pad", x, b.constant([0, 0, 1, 1] * 2), pad)
    y = b.op("Conv", y, maybe(b.values(C, C, 3, 3), "weight"), maybe(b.values(C), "bias"))
    scale, mean = maybe(b.values(C), "scale"), maybe(b.values(C), "mean")
    y = b.op("BatchNormalization", y, scale, b.random(C), mean, b.positive(C))
    y = b.op("Mul", y, maybe(b.values(C, 1, 1), "mul"))
    folded = optimized(b.model(y), *SIZES)
    for tensor in folded.model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        kept = any(np.array_equal(value, old, equal_nan=True) for old in originals(b))
        assert kept or value.dtype.kind != "f" or np.isfinite(value).all()


def originals(b: Builder) -> list[np.ndarray]:
    return [numpy_helper.to_array(t) for t in b.initializers]


def test_folds_finite_part_beside_weights_that_are_not_finite():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Relu", b.batch_norm(b.conv(x, C, C, (1, 1)), C))
    weight = b.values(C, C, 1, 1)
    weight[0, 0] = np.nan
    z = b.batch_norm(b.op("Conv", y, b.constant(weight)), C)
    folded = optimized(b.model(z), *SIZES)
    assert folded.ops == {"Conv": 2, "Relu": 1, "BatchNormalization": 1}


def test_refuses_product_of_infinity_and_zero():
    """x * inf / inf is NaN, and not x times any weight."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Mul", b.conv(x, C, C, (1, 1)), b.constant(np.asarray(np.inf)))
    y = b.op("Div", y, b.constant(np.asarray(np.inf)))
    optimized(b.model(y), *SIZES)


def test_widens_bfloat16_constants():
    b = Builder(22, TensorProto.BFLOAT16)
    x = b.input("n", 3)
    y = b.op("Mul", b.op("Gemm", x, b.random(3, 2), b.random(2)), b.constant(1.5))
    result = onnxfuse.optimize(b.model(y))
    assert [n.op_type for n in result.model.graph.node] == ["Gemm"]
    values = [numpy_helper.to_array(t) for t in result.model.graph.initializer]
    assert all(v.dtype == ml_dtypes.bfloat16 for v in values)


def test_folds_each_part_in_its_own_type():
    """float32 layers, a Cast, float64 layers."""
    b = Builder(17)
    x = b.input("n", 3)
    y = b.op("Mul", b.op("Gemm", x, b.random(3, 4), b.random(4)), b.constant(1.5))
    y = b.op("Cast", y, to=TensorProto.DOUBLE)
    double = {"elem_type": TensorProto.DOUBLE}
    y = b.op("MatMul", y, b.constant(b.values(4, 2), **double))
    y = b.op("Mul", y, b.constant(np.asarray(0.3), **double))
    folded = optimized(b.model(b.op("Cast", y, to=TensorProto.FLOAT)), *SIZES)
    assert folded.ops == {"Gemm": 1, "Cast": 2, "MatMul": 1}
    assert types_of(folded.model) == {TensorProto.FLOAT, TensorProto.DOUBLE}


def with_small_weights(kind, small, scale):
    """A Conv whose weight is partly small, and a Mul that makes it smaller."""
    b = Builder(22, kind)
    x = b.input("n", C, "h", "w")
    weight = b.values(C, C, 3, 3)
    weight[:, 1] = small
    weight[2, 2, 1] = -small
    y = b.op("Conv", x, b.constant(weight), b.random(C), pads=PADS)
    return b.model(b.op("Mul", y, b.constant(scale * np.ones((C, 1, 1)))))


@pytest.mark.parametrize(
    ("kind", "small", "scale"),
    [
        (TensorProto.FLOAT, 1e-33, 3e-7),
        (TensorProto.BFLOAT16, 1e-33, 3e-7),
        (TensorProto.DOUBLE, 1e-300, 3e-9),
    ],
)
def test_flushes_denormals_of_folded_weights(kind, small, scale):
    result = onnxfuse.optimize(with_small_weights(kind, small, scale))
    assert [n.op_type for n in result.model.graph.node] == ["Conv"]
    (fold,) = result.report.folds
    weight = next(t for t in result.model.graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(weight)
    expected = C * 9 + 3
    assert fold.flushed == expected
    assert np.count_nonzero(array) == array.size - expected


def test_keeps_denormals_of_float16():
    """They have digits there, and are normal numbers in the float32 of the kernels."""
    result = onnxfuse.optimize(with_small_weights(TensorProto.FLOAT16, 1e-3, 0.03))
    (fold,) = result.report.folds
    assert fold.flushed == 0


def test_keeps_denormals_beside_a_channel_of_their_size():
    b = Builder(22)
    x = b.input("n", C, "h", "w")
    weight = b.values(C, C, 3, 3)
    weight[0] *= 1e-31
    weight[0, 1] *= 1e-3
    y = b.op("Conv", x, b.constant(weight), pads=PADS)
    result = onnxfuse.optimize(b.model(b.op("Mul", y, b.constant(3e-6 * np.ones((C, 1, 1))))))
    (fold,) = result.report.folds
    assert fold.flushed == 0
    array = numpy_helper.to_array(result.model.graph.initializer[0])
    assert np.count_nonzero(array) == array.size
