"""Sound models that are spoilt by the fuzzer: something of every kind that the package looks at."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts.bench_optimizer import multi_branch
from tests.io.building import rich
from tests.lift.building import Builder, same
from tests.parity.test_hostile_models import quantized
from tests.probe.building import im2col, rim


def _bodies() -> onnx.ModelProto:
    """If and Loop with a folding Conv in each body, and tensors captured from around them."""
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n,3,8,8] x, bool c, int64 trips) => (float[n,3,8,8] y, float[n,3,8,8] z)
        <float[3,3,1,1] w = {0.5,1,2,3,4,5,6,7,8}, float[3] s = {1.5,2.5,-3.5}>
        {
            a = Conv (x, w)
            y = If (c) <then_branch = t () => (float[n,3,8,8] p) {
                    k = Constant <value = float[3,1,1] {2.0,3.0,4.0}> ()
                    q = Conv (a, w)
                    p = Mul (q, k)
                }, else_branch = e () => (float[n,3,8,8] r) {
                    m = Conv (a, w, s)
                    o = If (c) <then_branch = t2 () => (float[n,3,8,8] p2) { p2 = Neg (m) },
                        else_branch = e2 () => (float[n,3,8,8] r2) { r2 = Add (m, a) }>
                    r = Add (o, m)
                }>
            z = Loop (trips, c, y) <body = b (int64 i, bool on, float[n,3,8,8] v)
                => (bool go, float[n,3,8,8] u) {
                    go = Identity (on)
                    h = Conv (v, w)
                    u = BatchNormalization (h, s, s, s, s)
                }>
        }"""
    )


def _functions() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[n,3,8,8] x) => (float[n,3,8,8] y)
        <float[3,3,1,1] w = {0.5,1,2,3,4,5,6,7,8}, float[3] s = {1.5,2.5,-3.5}>
        { a = Conv (x, w)  b = own.twice <by = 2.0> (a)  d = Conv (b, w, s)  y = Add (d, b) }
        <domain: "own", opset_import: ["": 17]>
        twice <by> (a) => (b) { k = Constant <value_float: float = @by> ()  b = Mul (a, k) }"""
    )


def _computed_shapes() -> onnx.ModelProto:
    """Sizes in nodes, and constants that only evaluation gives."""
    b = Builder()
    x = b.input("n", 4, 5, 6)
    y = b.batch_norm(b.conv(x, 4, 6, pads=same((3, 3))), 6)
    size = b.op("Gather", b.op("Shape", y), b.constant([0]), axis=0)
    flat = b.op("Reshape", y, b.op("Concat", size, b.constant([6, -1]), axis=0))
    ones = b.op("ConstantOfShape", b.constant([6, 1]), value=helper.make_tensor("", 1, [1], [2.0]))
    steps = b.op("Range", *(b.constant(np.array(n)) for n in (0, 6, 1)))
    column = b.op("Unsqueeze", b.op("Cast", steps, to=TensorProto.FLOAT), b.constant([1]))
    scaled = b.op("Add", b.op("Mul", flat, b.op("Tile", ones, b.constant([1, 1]))), column)
    last = b.op("Transpose", scaled, perm=[0, 2, 1])
    y = b.op("MatMul", last, b.op("Neg", b.random(6, 5)))
    return b.model(b.op("Where", b.op("Less", y, b.constant(0.5)), y, b.op("Add", y, b.random(5))))


def _layers() -> onnx.ModelProto:
    """One of each layer that is lifted."""
    b = Builder()
    x = b.input(2, 4, 9, 9)
    y = b.conv(x, 4, 4, group=2, pads=same((3, 3)), dilations=[1, 1])
    pooled = b.op("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    joined = b.op("Concat", pooled, b.op("Identity", y), axis=1)
    halves = b.ops("Split", joined, b.constant([3, 5]), outputs=2, axis=1)
    cut = b.op("Slice", halves[1], *(b.constant([n]) for n in (1, 4, 1, 1)))
    y = b.op("Sum", cut, halves[0], b.op("Dropout", halves[0]))
    y = b.op("ConvTranspose", y, b.random(3, 2, 2, 2), strides=[2, 2], group=1)
    y = b.op("Pad", b.batch_norm(y, 2, epsilon=1e-2), b.constant([0, 0, 1, 1, 0, 0, 1, 1]))
    y = b.op("Relu", b.conv(y, 2, 3, auto_pad="SAME_UPPER"))
    y = b.op("Flatten", b.op("GlobalAveragePool", y))
    y = b.op("Gemm", y, b.random(3, 4), b.random(4), alpha=0.5)
    return b.model(b.op("Div", b.op("Sub", y, b.random(4)), b.random(1)))


def _movement() -> onnx.ModelProto:
    """Convolutions written as windows and a matrix product, and as an overwritten rim."""
    b = Builder()
    x = b.input(1, 4, 5, 6)
    y = im2col(b, rim(b, x, (1, 4, 5, 6), b.values(4)), (7, 8))
    return b.model(b.op("Relu", y))


def _mixed() -> onnx.ModelProto:
    """Tensors with their data in typed fields, in float16, bfloat16, int4 and strings."""
    b = Builder(opset=21, elem_type=TensorProto.FLOAT16)
    x = b.input("n", 3, 7)
    y = b.batch_norm(b.conv(x, 3, 3, (3,), pads=[1, 1]), 3)
    wide = b.op("Cast", b.op("Add", y, b.op("Cast", b.constant([1.0], elem_type=16), to=10)), to=1)
    weight = b.constant([[1], [2], [3]], elem_type=TensorProto.INT4)
    scaled = b.op("DequantizeLinear", weight, b.constant(np.float32(0.5), elem_type=1))
    model = b.model(b.op("Mul", wide, scaled), types={})
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            half = numpy_helper.to_array(tensor).view(np.uint16)
            tensor.ClearField("raw_data")
            tensor.int32_data.extend(half.ravel().tolist())
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [2], ["a", "b"]))
    model.graph.node.append(helper.make_node("Identity", ["text"], ["labels"]))
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.STRING, [2]))
    return model


SEEDS = {
    "branches": multi_branch(16),
    "bodies": _bodies(),
    "functions": _functions(),
    "computed shapes": _computed_shapes(),
    "layers": _layers(),
    "movement": _movement(),
    "mixed": _mixed(),
    "quantized": quantized(17, 0),
    "rich": rich(),
}
