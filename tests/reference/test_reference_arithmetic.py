"""Arithmetic, products, reductions and constants against ONNX Runtime."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import (
    DIVISION,
    NEWEST_OF_ONNXRUNTIME,
    assert_agrees,
    integers,
    run_onnxruntime,
)

EPS = float(np.finfo(np.float64).eps)
OPSETS = st.sampled_from([7, 9, 10, 11, 13, 18, 22, NEWEST_OF_ONNXRUNTIME])
SEEDS = st.integers(0, 99)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["Add", "Sub", "Mul", "Div"]),
    mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3),
    st.sampled_from([np.float32, np.float64, np.int32, np.int64]),
    OPSETS,
    SEEDS,
)
def test_elementwise(op_type, shapes, dtype, opset, seed):
    rng = np.random.default_rng(seed)
    a, b = (integers(rng, *shape, dtype=dtype) for shape in shapes.input_shapes)
    if op_type == "Div":
        b[b == 0] = 3
    node = helper.make_node(op_type, ["a", "b"], ["y"])
    assert_agrees(node, {"a": a, "b": b}, opset, rtol=DIVISION if op_type == "Div" else 0.0)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integer_division_rounds_towards_zero(dtype):
    a = np.array([7, -7, 7, -7, 6, -6, 0, 2**40]).astype(dtype)
    b = np.array([2, 2, -2, -2, 3, 3, 5, -3]).astype(dtype)
    if dtype == np.uint8:
        a, b = np.array([7, 255, 0], dtype), np.array([2, 16, 9], dtype)
    node = helper.make_node("Div", ["a", "b"], ["y"])
    assert_agrees(node, {"a": a, "b": b}, 14)


def test_integer_division_keeps_all_64_bits():
    a, b = np.array([-(2**62) - 1, 2**62 + 1]), np.array([1, 1])
    node = helper.make_node("Div", ["a", "b"], ["y"])
    np.testing.assert_array_equal(evaluate([node], {"a": a, "b": b}, 14)["y"], a)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_neg(dtype):
    x = integers(np.random.default_rng(0), 2, 3, dtype=dtype)
    assert_agrees(helper.make_node("Neg", ["x"], ["y"]), {"x": x}, 13)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["Sum", "Mean"]),
    mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3),
    st.integers(1, 3),
    st.sampled_from([8, 13, NEWEST_OF_ONNXRUNTIME]),
    SEEDS,
)
def test_sum_and_mean(op_type, shapes, count, opset, seed):
    rng = np.random.default_rng(seed)
    inputs = {f"x{i}": integers(rng, *shapes.input_shapes[i]) for i in range(count)}
    assert_agrees(helper.make_node(op_type, list(inputs), ["y"]), inputs, opset, rtol=DIVISION)


MATMUL_SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((4, 3), (3,)),
    ((4, 3), (3, 2)),
    ((3, 3), (3, 3)),
    ((2, 4, 3), (3, 2)),
    ((4, 3), (2, 3, 5)),
    ((2, 1, 4, 3), (3, 3, 2)),
    ((2, 4, 3), (3,)),
    ((3,), (2, 3, 5)),
    ((2, 3, 1, 4, 3), (2, 1, 3, 3, 2)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), MATMUL_SHAPES)
@pytest.mark.parametrize("opset", [7, 9, NEWEST_OF_ONNXRUNTIME])
def test_matmul(a_shape, b_shape, opset):
    rng = np.random.default_rng(0)
    inputs = {"a": integers(rng, *a_shape), "b": integers(rng, *b_shape)}
    assert_agrees(helper.make_node("MatMul", ["a", "b"], ["y"]), inputs, opset)


@pytest.mark.parametrize("transA", [0, 1])
@pytest.mark.parametrize("transB", [0, 1])
@pytest.mark.parametrize(
    "factors", [{}, {"alpha": 0.5}, {"beta": -2.0}, {"alpha": 3, "beta": 0.25}]
)
@pytest.mark.parametrize("c_shape", [None, (), (1,), (4,), (3, 1), (1, 4), (3, 4)])
def test_gemm(transA, transB, factors, c_shape):
    rng = np.random.default_rng(0)
    inputs = {
        "a": integers(rng, 3, 3),
        "b": integers(rng, *((4, 3) if transB else (3, 4))),
    }
    opset = 11
    if c_shape is not None:
        inputs["c"] = integers(rng, *c_shape)
        opset = 7
    factors = {name: float(value) for name, value in factors.items()}
    node = helper.make_node("Gemm", list(inputs), ["y"], transA=transA, transB=transB, **factors)
    for version in (opset, NEWEST_OF_ONNXRUNTIME):
        assert_agrees(node, inputs, version)


def test_gemm_of_matrices_that_are_not_square():
    rng = np.random.default_rng(0)
    inputs = {"a": integers(rng, 5, 2), "b": integers(rng, 3, 5), "c": integers(rng, 3)}
    node = helper.make_node("Gemm", list(inputs), ["y"], transA=1, transB=1)
    assert_agrees(node, inputs, 13)


def test_gemm_of_integers():
    a = np.array([[2**62]])
    node = helper.make_node("Gemm", ["a", "b"], ["y"])
    y = evaluate([node], {"a": a, "b": np.array([[1]])}, 13)["y"]
    assert y.dtype == np.int64
    assert y == 2**62
    node = helper.make_node("Gemm", ["a", "b"], ["y"], alpha=0.5)
    with pytest.raises(UnsupportedOperator, match=r"alpha \(=0.5\)"):
        evaluate([node], {"a": a, "b": a}, 13)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij, jk", [(2, 3), (3, 4)]),
        ("nchw,mc->nmhw", [(2, 3, 3, 3), (4, 3)]),
        ("...ij,...jk->...ik", [(2, 2, 3), (2, 3, 4)]),
        ("ii->i", [(3, 3)]),
        ("ij->", [(2, 3)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
        ("bij,bjk,kl->bil", [(2, 3, 3), (2, 3, 3), (3, 5)]),
        ("i,i->", [(3,), (3,)]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_einsum(equation, shapes, dtype):
    rng = np.random.default_rng(0)
    inputs = {f"x{i}": integers(rng, *shape, dtype=dtype) for i, shape in enumerate(shapes)}
    node = helper.make_node("Einsum", list(inputs), ["y"], equation=equation)
    assert_agrees(node, inputs, 12)


@pytest.mark.parametrize("opset", [7, 9, 14, 15, NEWEST_OF_ONNXRUNTIME])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (3, 3, 3, 3), (1, 3, 2, 3, 4)])
@pytest.mark.parametrize("epsilon", [None, 1e-2])
def test_batch_normalization(opset, shape, epsilon):
    rng = np.random.default_rng(0)
    x, scale, b, mean = rng.normal(size=shape), *rng.normal(size=(3, 3))
    var = np.array([0.0, 1e-4, 3.0])  # epsilon decides the first
    inputs = {"x": x, "scale": scale, "b": b, "mean": mean, "var": var}
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    node = helper.make_node("BatchNormalization", list(inputs), ["y"], **attributes)
    expected = run_onnxruntime([node], inputs, opset)["y"]
    # ONNX Runtime: x * s + (b - mean * s) with s = scale / sqrt(var + epsilon), each step rounded
    channels = [3] + [1] * (len(shape) - 2)
    s = (np.abs(scale) / np.sqrt(var + (epsilon or 1e-5))).reshape(channels)
    size = (np.abs(x) + np.abs(mean).reshape(channels)) * s + np.abs(b).reshape(channels)
    error = np.abs(evaluate([node], inputs, opset)["y"] - expected)
    assert (error <= 16 * EPS * size).all()


def test_batch_normalization_per_element():
    # spatial=0 (opset 7, 8): the parameters have the shape (C, H, W)
    rng = np.random.default_rng(0)
    x, (scale, b, mean, var) = rng.normal(size=(2, 3, 3, 3)), rng.random((4, 3, 3, 3))
    node = helper.make_node(
        "BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], spatial=0, epsilon=0.25
    )
    values = {"x": x, "s": scale, "b": b, "m": mean, "v": var}
    expected = scale * (x - mean) / np.sqrt(var + 0.25) + b
    np.testing.assert_allclose(evaluate([node], values, 7)["y"], expected, rtol=0, atol=16 * EPS)


@pytest.mark.parametrize(
    ("outputs", "attributes", "opset"),
    [
        (["y", "mean", "var"], {"training_mode": 1}, 15),
        (["y"], {"training_mode": 1}, 14),
        (["y", "mean", "var", "saved_mean", "saved_var"], {}, 9),
        (["y", "", "", "", "saved_var"], {}, 7),
    ],
)
def test_refuses_batch_normalization_in_training_mode(outputs, attributes, opset):
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], outputs, **attributes)
    values = {"x": np.ones((2, 3))} | {name: np.ones(3) for name in "sbmv"}
    with pytest.raises(UnsupportedOperator, match="training mode"):
        evaluate([node], values, opset)


def test_batch_normalization_with_nameless_statistics_is_inference():
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y", "", ""])
    values = {"x": np.ones((2, 3))} | {name: np.ones(3) for name in "sbmv"}
    assert set(evaluate([node], values, 9)) == {"x", *"sbmvy"}


@pytest.mark.parametrize("opset", [7, 10, 11])
def test_dropout_with_ratio_as_attribute(opset):
    x = integers(np.random.default_rng(0), 2, 3)
    node = helper.make_node("Dropout", ["x"], ["y"], ratio=0.25)
    assert_agrees(node, {"x": x}, opset)
    node = helper.make_node("Dropout", ["x"], ["y", "mask"], ratio=0.25)
    with pytest.raises(UnsupportedOperator, match=r"\['mask'\]"):  # unspecified at inference
        evaluate([node], {"x": x}, opset)


@pytest.mark.parametrize("opset", [12, 13, 22])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_dropout_with_ratio_as_input(opset, count):
    x = integers(np.random.default_rng(0), 2, 3)
    inputs = {"x": x, "ratio": np.array(0.25, np.float32), "training_mode": np.array(False)}
    inputs = dict(list(inputs.items())[:count])
    node = helper.make_node("Dropout", list(inputs), ["y", "mask"], seed=1)
    assert_agrees(node, inputs, opset)


def test_refuses_dropout_in_training_mode():
    node = helper.make_node("Dropout", ["x", "", "training_mode"], ["y"])
    values = {"x": np.ones(3), "training_mode": np.array(True)}
    with pytest.raises(UnsupportedOperator, match="training mode"):
        evaluate([node], values, 13)


@pytest.mark.parametrize("to", ["INT64", "INT32", "INT8", "UINT8", "BOOL", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_cast(to, dtype):
    x = np.array([0, 1, 2.75, 100.5]).astype(dtype)
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DataType.Value(to))
    for opset in (7, 9, 13, NEWEST_OF_ONNXRUNTIME):
        assert_agrees(node, {"x": x}, opset)


def test_cast_to_an_integer_truncates():
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
    assert_agrees(node, {"x": np.array([-1.75, -0.5, 1.75, -3.0], np.float32)}, 13)


@pytest.mark.parametrize("to", ["FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE"])
def test_cast_between_floats_does_not_round(to):
    x = np.array([1 + 2.0**-40, 1e300])
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DataType.Value(to))
    np.testing.assert_array_equal(evaluate([node], {"x": x}, 13)["y"], x)


@pytest.mark.parametrize("to", ["STRING", "FLOAT8E4M3FN", "INT4"])
def test_refuses_cast(to):
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DataType.Value(to))
    with pytest.raises(UnsupportedOperator, match=f"Cast to {to}"):
        evaluate([node], {"x": np.ones(2)}, 21)


def test_refuses_cast_from_strings():
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    with pytest.raises(UnsupportedOperator, match="Cast from"):
        evaluate([node], {"x": np.array(["1"])}, 13)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (
            {"value": numpy_helper.from_array(np.array([1, 2], np.int32))},
            np.array([1, 2], np.int32),
        ),
        ({"value": numpy_helper.from_array(np.float16([0.1]))}, np.float16([0.1]).astype(float)),
        ({"value_float": 0.1}, np.array(float(np.float32(0.1)))),
        ({"value_floats": [0.5, 2.0]}, np.array([0.5, 2.0])),
        ({"value_int": 2**40}, np.array(2**40)),
        ({"value_ints": [3, -1]}, np.array([3, -1])),
        ({"value": helper.make_tensor("t", TensorProto.BFLOAT16, [1], [0.5])}, np.array([0.5])),
    ],
)
def test_constant(attribute, expected):
    y = evaluate([helper.make_node("Constant", [], ["y"], **attribute)], {}, 13)["y"]
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("attribute", [{"value_string": "a"}, {"value_strings": ["a", "b"]}])
def test_refuses_a_constant_string(attribute):
    with pytest.raises(UnsupportedOperator, match="value_string"):
        evaluate([helper.make_node("Constant", [], ["y"], **attribute)], {}, 13)


@st.composite
def reductions(draw):
    """(node, inputs, opset)."""
    op_type = draw(st.sampled_from(["ReduceSum", "ReduceMean"]))
    opset = draw(OPSETS)
    rank = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([np.float32, np.int64 if op_type == "ReduceSum" else np.float64]))
    sizes = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    attributes = {}
    if draw(st.booleans()):
        attributes["keepdims"] = draw(st.integers(0, 1))
    axes = draw(st.none() | st.lists(st.integers(0, rank - 1), unique=True))
    if axes and opset >= 11 and draw(st.booleans()):
        axes = [axis - rank for axis in axes]
    inputs = {"x": integers(np.random.default_rng(draw(SEEDS)), *sizes, dtype=dtype)}
    if opset >= (13 if op_type == "ReduceSum" else 18):
        attributes["noop_with_empty_axes"] = draw(st.integers(0, 1))
        if axes is not None:
            inputs["axes"] = np.array(axes, np.int64)
    elif axes:
        attributes["axes"] = axes
    return helper.make_node(op_type, list(inputs), ["y"], **attributes), inputs, opset


@settings(max_examples=100, deadline=None)
@given(reductions())
def test_reduce(reduction):
    node, inputs, opset = reduction
    assert_agrees(node, inputs, opset, rtol=DIVISION if node.op_type == "ReduceMean" else 0.0)


def test_reduce_mean_of_integers_rounds_towards_zero():
    x = np.array([[1, 2, 2], [-1, -2, -2]])
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])
    np.testing.assert_array_equal(evaluate([node], {"x": x}, 13)["y"], [[1], [-1]])


FINE = 1 + 2.0**-40  # float32 would round it to 1


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Conv", [(1, 1, 1), (1, 1, 1)], {}),
        ("Conv", [(1, 1, 70), (1, 1, 64)], {"dilations": [70]}),
        ("ConvTranspose", [(1, 1, 1), (1, 1, 1)], {}),
        ("AveragePool", [(1, 1, 1)], {"kernel_shape": [1]}),
        ("GlobalAveragePool", [(1, 1, 1)], {}),
        ("Mul", [(1,), (1,)], {}),
        ("Div", [(1,), (1,)], {}),
        ("MatMul", [(1, 1), (1, 1)], {}),
        ("Gemm", [(1, 1), (1, 1)], {}),
        ("Einsum", [(1, 1), (1, 1)], {"equation": "ij,jk->ik"}),
        ("ReduceMean", [(1, 1)], {}),
        ("ReduceSum", [(1, 1)], {}),
        ("Mean", [(1, 1)], {}),
        ("Pad", [(1,), (1,)], {}),
    ],
)
def test_computes_in_float64(op_type, inputs, attributes):
    values = {"a": np.full(inputs[0], FINE)}
    if len(inputs) > 1:
        values["b"] = np.ones(inputs[1])
    if op_type == "Pad":
        values["b"] = np.array([0, 0])
    if attributes.get("dilations"):
        values["b"] = values["b"] * (np.arange(64) == 0)
        attributes = {"pads": [0, 63]}
    node = helper.make_node(op_type, list(values), ["y"], **attributes)
    assert (evaluate([node], values, 22)["y"] == FINE).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_widens_floats_of_any_width(dtype):
    x = np.array([0.1, -3.0]).astype(dtype)
    known = evaluate([helper.make_node("Identity", ["x"], ["y"])], {"x": x}, 16)
    assert known["x"].dtype == known["y"].dtype == np.float64
    np.testing.assert_array_equal(known["y"], x.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, np.bool_])
def test_keeps_the_type_of_integers(dtype):
    known = evaluate([helper.make_node("Identity", ["x"], ["y"])], {"x": np.ones(2, dtype)}, 16)
    assert known["y"].dtype == dtype
