"""What a fold must not do: make the model larger or slower, lose digits, or trust stale shapes."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder, same
from tests.lift.comparing import optimized


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("start", [1, 4, 20])
def test_a_crop_before_a_conv_does_not_become_a_large_kernel(known, start):
    b = Builder()
    x = b.op("Relu", b.input(1, 32, *((48, 48) if known else ("h", "w"))))
    bounds = [b.constant(v) for v in ([start, start], [2**31, 2**31], [2, 3])]
    folded = optimized(
        b.model(b.conv(b.op("Slice", x, *bounds), 32, 32, (1, 1))), {"h": 48, "w": 48}
    )
    (weight,) = (t for t in folded.model.graph.initializer if len(t.dims) == 4)
    assert math.prod(weight.dims[2:]) <= 4


def test_slices_alone_do_not_become_convs():
    b = Builder()
    x = b.op("Relu", b.input(1, 3, "h", "w"))
    rows = b.op("Slice", x, *(b.constant(v) for v in ([1], [2**31], [2], [2])))
    y = b.op("Slice", rows, *(b.constant(v) for v in ([1], [2**31], [3], [2])))
    assert "Conv" not in optimized(b.model(b.op("Relu", y)), {"h": 8, "w": 6}).ops


def test_a_global_pool_does_not_become_a_table_of_weights():
    b = Builder()
    x = b.op("Relu", b.input(1, 16, 56, 56))
    y = b.op("GlobalAveragePool", b.batch_norm(x, 16))
    folded = optimized(b.model(b.conv(y, 16, 4, (1, 1))))
    assert sum(math.prod(t.dims) for t in folded.model.graph.initializer) < 1000


def test_a_split_of_one_product_does_not_become_three_products():
    b = Builder()
    x = b.input(1, 197, 192)
    y = b.op("Add", b.op("MatMul", x, b.random(192, 576)), b.random(576))
    parts = [b.op("Relu", part) for part in b.ops("Split", y, outputs=3, axis=2)]
    folded = optimized(b.model(*parts))
    assert folded.ops.total() <= 6


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_refuses_a_scale_that_leaves_no_digits(elem_type):
    b = Builder(elem_type=elem_type)
    x = b.input(1, 4, 5, 5)
    tiny = 1e-25 if elem_type == TensorProto.FLOAT else 1e-4
    y = b.op("Mul", b.conv(x, 4, 4, (1, 1), bias=False), b.constant(tiny))
    result = onnxfuse.optimize(b.model(b.op("Mul", y, b.constant(tiny))))
    assert any("underflows" in refused.reason for refused in result.report.refusals)
    smallest = np.finfo(helper.tensor_dtype_to_np_dtype(elem_type)).tiny
    for tensor in result.model.graph.initializer:
        rows = onnx.numpy_helper.to_array(tensor).reshape((*tensor.dims, 1)[0], -1)
        assert np.all(np.abs(rows).max(axis=1) >= smallest)


@pytest.mark.parametrize("terms", [300, 700])
def test_long_sums_fold(terms):
    b = Builder()
    x = b.input(1, 4, 6, 6)
    y = b.op("Sum", *[x] * terms)
    for _ in range(terms):
        y = b.op("Add", y, x)
    result = onnxfuse.optimize(b.model(b.conv(y, 4, 4, (1, 1))))
    assert [n.op_type for n in result.model.graph.node] == ["Conv"]


def test_cancellation_is_not_taken_for_an_error():
    b = Builder()
    x = b.input(1, 4, 6, 6)
    y = b.conv(x, 4, 4, (3, 3), pads=same((3, 3)))
    zero = b.op("Sub", b.op("Mean", y, y, y), y)
    far = b.op("Sub", b.op("Add", y, b.constant(1e8)), b.constant(1e8))
    onnxfuse.optimize(b.model(zero, far))


@pytest.mark.parametrize("dims", [[None] * 4, [-1, 4, -1, -1]])
def test_stale_sizes_of_inner_tensors_are_not_believed(dims):
    b = Builder()
    x = b.op("Relu", b.input(*dims), output="inner")
    pooled = b.op("GlobalAveragePool", x)
    sizes = b.op("Cast", b.op("Shape", x), to=TensorProto.FLOAT)
    model = b.model(b.batch_norm(pooled, 4, output="y"), sizes)
    del model.graph.value_info[:]
    model.graph.value_info.append(
        helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 4, 6, 6])
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    result = onnxfuse.optimize(model)
    assert {"Shape", "GlobalAveragePool"} <= {n.op_type for n in result.model.graph.node}


def test_a_dead_reader_does_not_keep_a_tensor():
    b = Builder()
    x = b.input(1, 4, 6, 6)
    y = b.conv(x, 4, 4, (1, 1))
    b.op("Relu", y)
    folded = optimized(b.model(b.op("Mul", y, b.random(4, 1, 1))))
    assert folded.ops == {"Conv": 1}


def test_constants_found_late_are_folded_in_one_run():
    b = Builder()
    x = b.input(1, 4, 6, 6)
    pads = b.op("Cast", b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1.0])), to=TensorProto.INT64)
    padded = b.op("Pad", x, pads)
    total = b.op("ReduceSum", b.op("Cast", b.op("Shape", padded), to=1), keepdims=0)
    y = b.op("Mul", b.conv(padded, 4, 4, (3, 3)), total)
    assert optimized(b.model(y)).ops == {"Conv": 1}


@pytest.mark.parametrize("option", ["skip", "keep"])
@pytest.mark.parametrize("value", ["Conv", None])
def test_options_are_lists_of_names(option, value):
    b = Builder()
    model = b.model(b.conv(b.input(1, 4, 6, 6), 4, 4, (1, 1)))
    with pytest.raises(onnxfuse.ModelError, match=option):
        onnxfuse.optimize(model, **{option: value})


def test_a_split_into_20000_outputs_is_not_followed():
    b = Builder()
    parts = b.ops("Split", b.input(1, 20_000, 2, 2), outputs=20_000, axis=1)
    result = onnxfuse.optimize(b.model(b.op("Sum", *parts)))
    assert [n.op_type for n in result.model.graph.node] == ["Split", "Sum"]


@pytest.mark.parametrize(("count", "ops"), [(64, {"Conv": 1}), (1025, {"Conv": 2, "Split": 1})])
def test_one_of_many_outputs_of_a_split(count, ops):
    b = Builder()
    first, *_ = b.ops("Split", b.conv(b.input(1, 2, 2, 2), 2, count, (1, 1)), outputs=count, axis=1)
    folded = optimized(b.model(b.conv(first, 1, 1, (1, 1))))
    assert folded.ops == ops
