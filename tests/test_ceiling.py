"""Pools with ceil_mode: their sizes are those that ONNX Runtime makes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxfuse.shapes import infer_types
from tests.lift.building import Builder
from tests.lift.comparing import optimized, run

# kernel, stride, padding in front, padding behind, size
WINDOWS = [(2, 2, 0, 1, 4), (1, 3, 0, 0, 6), (3, 4, 1, 2, 4), (3, 2, 1, 1, 6), (2, 2, 1, 1, 5)]


def pooled(b: Builder, x: str, op_type: str, kernel, stride, begin, end, **attributes) -> str:
    return b.op(
        op_type,
        x,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[begin, begin, end, end],
        ceil_mode=1,
        **attributes,
    )


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 22, 24])
@pytest.mark.parametrize("op_type", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("window", WINDOWS)
def test_sizes_are_those_of_the_runtime(opset, op_type, window):
    *window, size = window
    b = Builder(opset)
    model = b.model(pooled(b, b.input(1, 2, size, size), op_type, *window))
    (y,) = run(model, {"x": np.zeros((1, 2, size, size), np.float32)})
    assert infer_types(model)[model.graph.output[0].name].shape == y.shape


def test_sizes_in_bodies_and_functions():
    text = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[1, 2, 4, 4] x, bool flag) => (float[a, b, c, d] y, float[e, f, g, h] z) {
            y = own.pool (x)
            z = If (flag) <
                then_branch = yes () => (float[i, j, k, l] p) {
                    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1],
                        ceil_mode = 1> (x) },
                else_branch = no () => (float[m, n, o, p] q) { q = own.pool (x) }>
        }
        <domain: "own", opset_import: ["": 17]> pool (a) => (b) {
            b = AveragePool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1],
                ceil_mode = 1> (a) }"""
    types = infer_types(onnx.parser.parse_model(text))
    assert [types[name].shape for name in ("y", "z", "p", "q")] == [(1, 2, 2, 2)] * 4


def test_indices_of_a_max_pool():
    b = Builder(12)
    names = ["y", "indices"]
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}
    b.ops("MaxPool", b.input(1, 2, 4, 4), outputs=names, **attributes)
    types = infer_types(b.model(*names, types={"indices": TensorProto.INT64}))
    assert types["indices"].elem_type == TensorProto.INT64
    assert types["indices"].shape == types["y"].shape == (1, 2, 2, 2)


@pytest.mark.parametrize("opset", [13, 21, 22])
@pytest.mark.parametrize("op_type", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("behind", ["mean", "slice", "strided"])
def test_what_is_behind_such_a_pool_is_folded_for_the_size_that_it_has(
    opset, op_type, window, behind
):
    *window, size = window
    b = Builder(opset)
    y = b.conv(b.input(1, 2, size, size), 2, 2, (1, 1))
    y = pooled(b, y, op_type, *window)
    if behind == "mean":
        y = b.conv(b.op("GlobalAveragePool", y), 2, 2, (1, 1))
    elif behind == "slice":
        y = b.op("Slice", y, *map(b.constant, ([-2, -2], [99, 99], [2, 3])))
        y = b.conv(y, 2, 2, (1, 1))
    else:
        other = b.conv(y, 2, 2, (1, 1), strides=[2, 2])
        y = b.op("Add", b.conv(y, 2, 2, auto_pad="SAME_UPPER", strides=[2, 2]), other)
    model = b.model(b.op("Relu", y))
    output = model.graph.output[0]
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None] * 4))
    assert optimized(model).ops["Conv"] == 2
