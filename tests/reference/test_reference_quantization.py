"""Quantizing operators, against their definition in rational numbers and against ONNX Runtime.

The oracle goes element by element, in Fractions, whose `round` is to the nearest, ties to even.
Scales are powers of two and numbers are quarters of them, so that float32 rounds nothing and every
tie is one.
"""

import itertools
from fractions import Fraction

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import assert_agrees

TYPES = {
    name: np.dtype(getattr(ml_dtypes, name, None) or getattr(np, name))
    for name in ("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32")
}
SINCE = {"int2": 25, "uint2": 25, "int4": 21, "uint4": 21, "int16": 21, "uint16": 21}
SHAPE = (3, 5, 2)
FORMS = {
    # shape of the scale, attributes, index of an element -> index of its scale
    "tensor": ((), {}, lambda i: ()),
    "one number": ((1,), {}, lambda i: (0,)),
    "axis 0": ((3,), {"axis": 0}, lambda i: i[:1]),
    "axis": ((5,), {}, lambda i: i[1:2]),
    "last axis": ((2,), {"axis": -1}, lambda i: i[2:]),
    "blocks": ((3, 2, 2), {"axis": 1, "block_size": 3}, lambda i: (i[0], i[1] // 3, i[2])),
    "blocks, axis 0": ((2, 5, 2), {"axis": 0, "block_size": 2}, lambda i: (i[0] // 2, *i[1:])),
    "blocks of one": ((3, 5, 2), {"axis": 2, "block_size": 1}, lambda i: i),
    "one block": ((3, 1, 2), {"axis": -2, "block_size": 7}, lambda i: (i[0], 0, i[2])),
}
CASES = [
    pytest.param(form, kind, opset, id=f"{form}, {kind}, opset {opset}")
    for form, (_, given, _) in FORMS.items()
    for kind in TYPES
    for opset in ((10, 13, 19, 21, 23, 24, 25) if form in ("tensor", "axis", "blocks") else (25,))
    if opset >= SINCE.get(kind, 10)
    and opset >= (21 if "block_size" in given else 13 if form != "tensor" else 10)
]


def limits(kind):
    bits = int(kind.strip("uint"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def drawn(kind, shape, rng):
    """Codes, ends of the type among them."""
    low, high = limits(kind)
    if kind == "int32":  # float32 holds these, and their multiples
        low, high = -(2**22), 2**22
    codes = rng.integers(low, high + 1, shape)
    codes.flat[: codes.size // 3] = rng.choice([low, high], codes.size // 3)
    return codes.astype(TYPES[kind])


def scales(shape, rng, dtype=np.float32):
    return np.asarray(2.0 ** rng.integers(-3, 3, shape)).astype(dtype)


def named(names, *values):
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def run(node, constants, opset, output):
    """The runtime's output as float32, its inputs being initializers: types that numpy lacks."""
    nodes, name = [node], node.output[0]
    imports = [helper.make_opsetid("", opset)]
    if output != TensorProto.FLOAT:
        nodes.append(helper.make_node("DequantizeLinear", [name, "unit"], ["wide"]))
        constants, name = constants | {"unit": np.float32(1)}, "wide"
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    outputs = [onnx.ValueInfoProto(name=name)]
    graph = helper.make_graph(nodes, "one", [], outputs, tensors)
    version = helper.find_min_ir_version_for(imports)
    model = helper.make_model(graph, opset_imports=imports, ir_version=version)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {})[0]


@pytest.mark.parametrize("with_zero", [False, True])
@pytest.mark.parametrize(("form", "kind", "opset"), CASES)
def test_dequantize_linear(form, kind, opset, with_zero):
    rng = np.random.default_rng(7)
    shape, given, place = FORMS[form]
    values = {"x": drawn(kind, SHAPE, rng), "s": scales(shape, rng)}
    if with_zero:
        low, high = limits(kind)
        zeros = rng.integers(low, high + 1, shape) if kind != "int32" else np.zeros(shape)
        values["z"] = zeros.astype(TYPES[kind])
    node = helper.make_node("DequantizeLinear", list(values), ["y"], **given)
    expected = np.empty(SHAPE)
    for index in itertools.product(*map(range, SHAPE)):
        zero = int(values["z"][place(index)]) if with_zero else 0
        scale = Fraction(float(values["s"][place(index)]))
        expected[index] = float((int(values["x"][index]) - zero) * scale)
    y = evaluate([node], values, opset)["y"]
    np.testing.assert_array_equal(y, expected, strict=True)
    np.testing.assert_array_equal(run(node, values, opset, TensorProto.FLOAT), expected)


@pytest.mark.parametrize("with_zero", [False, True])
@pytest.mark.parametrize(
    ("form", "kind", "opset"), [case for case in CASES if case.values[1] != "int32"]
)
def test_quantize_linear(form, kind, opset, with_zero):
    if not with_zero and kind != "uint8" and opset < 21:
        pytest.skip("there the type of the codes is that of the zero point")
    rng = np.random.default_rng(11)
    shape, given, place = FORMS[form]
    low, high = limits(kind)
    values = {"x": None, "s": scales(shape, rng)}
    if with_zero:
        values["z"] = rng.integers(low, high + 1, shape).astype(TYPES[kind])
    elif kind != "uint8":
        given = given | {"output_dtype": helper.np_dtype_to_tensor_dtype(TYPES[kind])}
    expected = np.empty(SHAPE, np.int64)
    x = np.empty(SHAPE, np.float32)
    for index in itertools.product(*map(range, SHAPE)):
        scale = Fraction(float(values["s"][place(index)]))
        zero = int(values["z"][place(index)]) if with_zero else 0
        steps = Fraction(int(rng.integers(4 * (low - zero) - 9, 4 * (high - zero) + 10)), 4)
        x[index] = float(scale * steps)
        expected[index] = min(max(round(steps) + zero, low), high)
    values["x"] = x
    node = helper.make_node("QuantizeLinear", list(values), ["y"], **given)
    y = evaluate([node], values, opset)["y"]
    assert y.dtype == TYPES[kind]
    np.testing.assert_array_equal(y.astype(np.int64), expected)
    if opset >= 13 or kind in ("int8", "uint8"):
        made = run(node, values, opset, helper.np_dtype_to_tensor_dtype(y.dtype))
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_scales_and_numbers_of_narrow_types(dtype):
    rng = np.random.default_rng(3)
    codes, scale = drawn("int8", (4, 6), rng), scales((6,), rng, dtype)
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["y"])
    y = evaluate([node], {"x": codes, "s": scale}, 19)["y"]
    np.testing.assert_array_equal(y, codes * scale.astype(float), strict=True)
    back = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    values = {"x": y.astype(dtype), "s": scale, "z": np.zeros(6, np.int8)}
    np.testing.assert_array_equal(evaluate([back], values, 19)["y"], codes, strict=True)


def test_an_output_type_is_no_other_number():
    half = TensorProto.FLOAT16
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["y"], output_dtype=half)
    values = {"x": np.array([[1, -7]], np.int8), "s": np.float32(0.5)}
    assert evaluate([node], values, 23)["y"].tolist() == [[0.5, -3.5]]


def test_precision_is_that_of_float64():
    single = TensorProto.FLOAT
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"], precision=single)
    assert evaluate([node], {"x": np.array([2.5]), "s": np.array(0.5)}, 23)["y"].tolist() == [5]


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("saturate", [0, 1])
def test_floating_codes_are_read_and_not_made(dtype, saturate):
    codes = np.array([0.5, -3, 448]).astype(dtype)
    read = helper.make_node("DequantizeLinear", ["x", "s"], ["y"])
    y = evaluate([read], {"x": codes, "s": np.float32(2)}, 19)["y"]
    np.testing.assert_array_equal(y, 2 * codes.astype(float))
    made = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], saturate=saturate)
    values = {"x": np.ones(3, np.float32), "s": np.float32(2), "z": np.zeros((), dtype)}
    with pytest.raises(UnsupportedOperator, match="codes of type"):
        evaluate([made], values, 19)


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear"])
@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((4,), {}, r"shape \(4,\), not \(5,\)"),
        ((3, 5, 2), {}, r"not \(5,\)"),
        ((3,), {"axis": 3}, "axis 3 of a tensor of rank 3"),
        ((3,), {"axis": -4}, "axis -4 of a tensor of rank 3"),
        ((3, 3, 2), {"block_size": 3}, r"not \(3, 2, 2\)"),
        ((1, 2, 2), {"block_size": 3}, r"not \(3, 2, 2\)"),
        ((5,), {"block_size": 3}, r"not \(3, 2, 2\)"),
    ],
)
def test_scales_that_do_not_fit(operator, shape, given, message):
    node = helper.make_node(operator, ["x", "s"], ["y"], **given)
    x = np.zeros(SHAPE, np.int8 if operator == "DequantizeLinear" else np.float32)
    with pytest.raises(ValueError, match=message):
        evaluate([node], {"x": x, "s": np.ones(shape, np.float32)}, 21)


DYNAMIC = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])


@pytest.mark.parametrize(
    "x", [[-1, 3, 0.25], [1, 2, 3], [-1.25, -2, -0.5], [0, 0, 0], [127.5, -127.5, 1]]
)
def test_dynamic_quantize_linear(x):
    x = np.array(x, np.float32)
    assert_agrees(DYNAMIC, {"x": x}, 11, rtol=2**-22)
    made = evaluate([DYNAMIC], {"x": x}, 11)
    low, high = min(0, *x.tolist()), max(0, *x.tolist())
    scale = (Fraction(high) - Fraction(low)) / 255 or Fraction(1)
    zero = min(max(round(Fraction(-low) / scale), 0), 255)
    codes = [min(max(round(Fraction(float(n)) / scale) + zero, 0), 255) for n in x]
    assert made["y"].tolist() == codes
    assert float(made["scale"]) == pytest.approx(float(scale), rel=2**-50)
    assert made["zero"] == zero


def test_dynamic_quantize_linear_of_nothing():
    made = evaluate([DYNAMIC], {"x": np.zeros((0, 3), np.float32)}, 11)
    assert (made["y"].shape, float(made["scale"]), int(made["zero"])) == ((0, 3), 1.0, 0)


# Products ---------------------------------------------------------------------------------------


def small(rng, kind, *shape):
    """Codes so small that no kernel's sum of two products in 16 bits saturates."""
    low = 0 if kind == "uint8" else -8
    return np.asarray(rng.integers(low, 17, shape)).astype(kind)


def convolved(x, weight, stride, pads, groups):
    """Sums of products by the definition, in Python's integers; images of rank 2."""
    x = np.pad(x, ((0, 0), (0, 0), pads[::2], pads[1::2]))
    (batch, _, *size), (outputs, inputs, *kernel) = x.shape, weight.shape
    rows, columns = ((s - k) // stride + 1 for s, k in zip(size, kernel, strict=True))
    y = np.zeros((batch, outputs, rows, columns), object)
    for n, m, i, j in np.ndindex(*y.shape):
        first = m // (outputs // groups) * inputs
        y[n, m, i, j] = sum(
            int(x[n, first + c, i * stride + p, j * stride + q]) * int(weight[m, c, p, q])
            for c, p, q in np.ndindex(inputs, *kernel)
        )
    return y


@pytest.mark.parametrize("kinds", [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("per_channel", [False, True])
def test_convolutions_of_codes(kinds, groups, per_channel):
    rng = np.random.default_rng(5)
    x, w = small(rng, kinds[0], 2, 4, 5, 6), small(rng, kinds[1], 6, 4 // groups, 3, 2)
    xz, many = small(rng, kinds[0]), (6,) if per_channel else ()
    symmetric = kinds[1] == "int8"  # the runtime takes no other zeros by channel
    wz = np.zeros(many, np.int8) if symmetric else np.full(many, 5, np.uint8)
    shifted = w.astype(int) - wz.reshape(-1, 1, 1, 1)
    sums = convolved(x.astype(int) - int(xz), shifted, 2, (1, 1, 0, 2), groups)
    given = {"pads": [1, 1, 0, 2], "strides": [2, 2], "group": groups}

    if kinds == ("uint8", "uint8") or not per_channel:
        node = helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **given)
        values = named(["x", "w", "xz", "wz"], x, w, xz, wz)
        made = evaluate([node], values, 10)["y"]
        np.testing.assert_array_equal(made, sums.astype(np.int32), strict=True)
        if kinds == ("uint8", "uint8") and not per_channel:
            assert_agrees(node, values, 10)

    bias = rng.integers(-50, 50, 6).astype(np.int32)
    xs, ws, ys = np.float32(0.5), scales(many, rng), np.float32(8)
    yz = np.array(3, kinds[0])
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    values = named(names, x, xs, xz, w, ws, wz, ys, yz, bias)
    node = helper.make_node("QLinearConv", names, ["y"], **given)
    low, high = limits(kinds[0])
    expected = np.empty(sums.shape, kinds[0])
    for index in np.ndindex(*sums.shape):
        scale = Fraction(float(ws[index[1]] if per_channel else ws)) * Fraction(0.5) / 8
        code = round((sums[index] + int(bias[index[1]])) * scale) + 3
        expected[index] = min(max(code, low), high)
    np.testing.assert_array_equal(evaluate([node], values, 10)["y"], expected, strict=True)
    assert_agrees(node, values, 10)


@pytest.mark.parametrize("kinds", [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")])
@pytest.mark.parametrize("form", ["tensor", "rows", "stacked"])
def test_products_of_matrices_of_codes(kinds, form):
    rng = np.random.default_rng(9)
    batch = (2,) if form == "stacked" else ()
    a, b = small(rng, kinds[0], *batch, 3, 4), small(rng, kinds[1], *batch, 4, 5)
    rows, columns = {
        "tensor": ((), ()),
        "rows": ((3,), (5,)),
        "stacked": ((2, 3, 1), (2, 1, 5)),
    }[form]
    az, bz = small(rng, kinds[0], *rows), small(rng, kinds[1], *columns)
    left = a.astype(int) - (az.reshape(-1, 1) if form == "rows" else az)
    right = b.astype(int) - bz
    sums = np.einsum("...mk,...kn->...mn", left, right)
    node = helper.make_node("MatMulInteger", ["a", "b", "az", "bz"], ["y"])
    values = named(["a", "b", "az", "bz"], a, b, az, bz)
    np.testing.assert_array_equal(
        evaluate([node], values, 10)["y"], sums.astype(np.int32), strict=True
    )
    if form == "tensor":
        assert_agrees(node, values, 10)

    scale_a, scale_b = scales(rows, rng), scales(columns, rng)
    ys, yz = np.float32(4), np.array(2, kinds[0])
    names = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    values = named(names, a, scale_a, az, b, scale_b, bz, ys, yz)
    node = helper.make_node("QLinearMatMul", names, ["y"])
    low, high = limits(kinds[0])
    expected = np.empty(sums.shape, kinds[0])
    wide_a = np.broadcast_to(scale_a[:, None] if form == "rows" else scale_a, (*batch, 3, 1))
    wide_b = np.broadcast_to(scale_b, (*batch, 1, 5))
    for index in np.ndindex(*sums.shape):
        *n, i, j = index
        scale = Fraction(float(wide_a[(*n, i, 0)])) * Fraction(float(wide_b[(*n, 0, j)])) / 4
        expected[index] = min(max(round(int(sums[index]) * scale) + 2, low), high)
    made = evaluate([node], values, 21)["y"]
    np.testing.assert_array_equal(made, expected, strict=True)
    if form == "tensor":
        assert_agrees(node, values, 10)


def test_a_vector_times_a_matrix_of_codes():
    node = helper.make_node("MatMulInteger", ["a", "b", "az"], ["y"])
    values = {"a": np.array([3, 5], np.uint8), "b": np.array([[1, 2], [3, 4]], np.uint8)}
    values["az"] = np.array([1], np.uint8)
    assert evaluate([node], values, 10)["y"].tolist() == [14, 20]


def test_sums_overflow_in_32_bits():
    values = {"a": np.full((1, 40000), 255, np.uint8), "b": np.full((40000, 1), 255, np.uint8)}
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    assert evaluate([node], values, 10)["y"].tolist() == [[40000 * 255 * 255 - 2**32]]
