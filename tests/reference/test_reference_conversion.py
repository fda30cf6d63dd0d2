"""ConstantOfShape and Range, which make a tensor from its description."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import NEWEST_OF_ONNXRUNTIME, assert_agrees
from tests.reference.strategies import int64


@pytest.mark.parametrize("shape", [[], [2, 3], [0, 4]])
@pytest.mark.parametrize("kind", [None, "FLOAT", "DOUBLE", "INT64", "UINT8", "BOOL"])
@pytest.mark.parametrize("opset", [9, 21, NEWEST_OF_ONNXRUNTIME])
def test_constant_of_shape(shape, kind, opset):
    attributes = {}
    if kind is not None:
        value = helper.make_tensor("v", TensorProto.DataType.Value(kind), [1], [1])
        attributes["value"] = value
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"], **attributes)
    assert_agrees(node, {"shape": int64(shape)}, opset)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32, np.int64])
@pytest.mark.parametrize(
    ("start", "limit", "delta"),
    [(0, 7, 1), (3, 9, 3), (10, 4, -2), (-2, 9, 4), (5, 5, 1), (5, 0, 1)],
)
def test_range(dtype, start, limit, delta):
    names = ["start", "limit", "delta"]
    inputs = {n: np.array(v, dtype) for n, v in zip(names, (start, limit, delta), strict=True)}
    node = helper.make_node("Range", names, ["y"])
    for opset in (11, NEWEST_OF_ONNXRUNTIME):
        assert_agrees(node, inputs, opset)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_range_of_fractions(dtype):
    values = {n: np.array(v).astype(dtype) for n, v in (("s", 0.5), ("l", 2.75), ("d", 0.75))}
    y = evaluate([helper.make_node("Range", ["s", "l", "d"], ["y"])], values, 27)["y"]
    np.testing.assert_array_equal(y, [0.5, 1.25, 2.0], strict=True)


def test_range_keeps_all_64_bits():
    values = {"s": int64(2**62), "l": int64(2**62 + 5), "d": int64(2)}
    y = evaluate([helper.make_node("Range", ["s", "l", "d"], ["y"])], values, 11)["y"]
    np.testing.assert_array_equal(y, 2**62 + int64([0, 2, 4]), strict=True)


def test_refuses_a_range_whose_length_depends_on_rounding():
    # float32 rounds limit to 3; in float64 the element 3 is below it
    values = {"s": np.array(0.0), "l": np.array(3 + 2.0**-30), "d": np.array(1.0)}
    node = helper.make_node("Range", ["s", "l", "d"], ["y"])
    with pytest.raises(UnsupportedOperator, match=r"length 4\.0 or \[3\.0, 3\.0\]"):
        evaluate([node], values, 11)


@pytest.mark.parametrize(("limit", "delta"), [(1, 0), (1.0, 0.0), (np.inf, 1.0), (np.nan, 1.0)])
def test_range_without_end(limit, delta):
    values = {"s": np.array(limit) * 0 if limit == 1 else np.array(0.0)}
    values |= {"l": np.array(limit), "d": np.array(delta)}
    with pytest.raises(ValueError, match="no range from"):
        evaluate([helper.make_node("Range", ["s", "l", "d"], ["y"])], values, 11)
