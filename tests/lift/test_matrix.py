"""Gemm and MatMul with a constant operand, and parallel branches over them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.handmade import build
from tests.lift.building import Builder
from tests.lift.comparing import left_alone, optimized, refusal

SIZES = ({"n": 5, "m": 5}, {"n": 1, "m": 3}, {"n": 2, "m": 7})
D = 5


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("alpha", [None, 0.4])
@pytest.mark.parametrize("beta", [None, 1.7])
@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("size", [D, "n"])
def test_folds_batch_norm_into_gemm(trans_a, trans_b, alpha, beta, opset, size):
    """Square everywhere when the size is D, so that a wrong transposition has the right shape."""
    b = Builder(opset)
    x = b.input(*((D, size) if trans_a else (size, D)))
    given = {k: v for k, v in (("alpha", alpha), ("beta", beta)) if v is not None}
    y = b.op("Gemm", x, b.random(D, D), b.random(D), transA=trans_a, transB=trans_b, **given)
    y = b.op("Div", b.batch_norm(y, D), b.random(D))
    folded = optimized(b.model(y), *(SIZES if size == "n" else [{}]))
    assert folded.ops == {"Gemm": 1}, folded.reasons


@pytest.mark.parametrize("shape", [(), (1,), (D,), (1, D), (1, 1)])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_folds_every_shape_of_gemm_bias_that_is_the_same_for_all_rows(shape, trans_a):
    b = Builder()
    x = b.input(*((4, "n") if trans_a else ("n", 4)))
    y = b.op("Gemm", x, b.random(4, D), b.random(*shape), beta=0.6, transA=trans_a)
    folded = optimized(b.model(b.batch_norm(y, D)), *SIZES)
    assert folded.ops == {"Gemm": 1}


@pytest.mark.parametrize("shape", [(D, 1), (D, D)])
def test_refuses_gemm_bias_that_differs_from_row_to_row(shape):
    b = Builder()
    x = b.input(D, D)
    y = b.op("Gemm", x, b.random(D, D), b.random(*shape))
    folded = optimized(b.model(b.batch_norm(y, D)))
    assert folded.ops == {"Gemm": 1, "BatchNormalization": 1}


def test_refuses_gemm_with_computed_bias():
    b = Builder()
    x, z = b.input("n", D), b.input("n", D, name="z")
    y = b.op("Gemm", x, b.random(D, D), z)
    folded = optimized(b.model(b.batch_norm(y, D)), *SIZES)
    assert folded.ops == {"Gemm": 1, "BatchNormalization": 1}


def test_refuses_gemm_with_computed_matrix():
    b = Builder()
    x, z = b.input("n", D), b.input(D, D, name="z")
    y = b.op("Gemm", x, z, b.random(D))
    w = b.op("Gemm", b.random(3, D), z, b.random(D))
    folded = optimized(b.model(b.batch_norm(y, D), b.batch_norm(w, D)), *SIZES)
    assert folded.ops == {"Gemm": 2, "BatchNormalization": 2}


@pytest.mark.parametrize("opset", [7, 9, 10, 11])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_keeps_gemm_valid_where_its_bias_vanishes(opset, trans_a):
    """Before opset 11 the third operand of Gemm is not optional."""
    b = Builder(opset)
    x = b.input(*((4, "n") if trans_a else ("n", 4)))
    shift = b.values(D)
    y = b.op("Gemm", x, b.random(4, D), b.constant(shift), transA=trans_a)
    y = b.op("Mul", b.op("Sub", y, b.constant(shift)), b.random(D))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops.total() == 1, folded.reasons


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("side", ["right", "left"])
def test_folds_channel_affine_around_matmul(rank, side):
    b = Builder()
    lead = ["n", 2][: rank - 2]
    x = b.input(*lead, D, D)
    ones = (1,) if side == "left" else ()
    scaled = b.op("Mul", x, b.random(D, *ones))
    weight = b.random(D, D)
    y = b.op("MatMul", scaled, weight) if side == "right" else b.op("MatMul", weight, scaled)
    y = b.op(
        "Add", b.op("Mul", b.op("Add", y, b.random(D, *ones)), b.random(D, *ones)), b.constant(0.3)
    )
    folded = optimized(b.model(y), *SIZES)
    if (rank, side) == (2, "right"):
        assert folded.ops == {"Gemm": 1}
    else:
        assert folded.ops == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("side", ["right", "left"])
def test_refuses_scale_on_the_other_axis_of_matmul(rank, side):
    """Square, so that only the axis tells."""
    b = Builder()
    x = b.input(*["n", 2][: rank - 2], D, D)
    y = b.op("MatMul", *((x, b.random(D, D)) if side == "right" else (b.random(D, D), x)))
    ones = () if side == "left" else (1,)
    folded = optimized(b.model(b.op("Mul", y, b.random(D, *ones))), *SIZES)
    assert folded.ops == {"MatMul": 1, "Mul": 1}


def test_folds_batch_norm_behind_linear():
    b = Builder()
    x = b.input("n", 4)
    y = b.op("Add", b.op("MatMul", x, b.random(4, D)), b.random(D))
    assert optimized(b.model(b.batch_norm(y, D)), *SIZES).ops == {"Gemm": 1}


def test_folds_batch_norm_in_front_of_linear():
    b = Builder()
    x = b.input("n", 4)
    y = b.op("Gemm", b.batch_norm(x, 4), b.random(D, 4), b.random(D), transB=1)
    assert optimized(b.model(y), *SIZES).ops == {"Gemm": 1}


def test_refuses_batch_norm_behind_matmul_of_rank_3():
    """Its channels are the middle axis there."""
    b = Builder()
    x = b.input("n", D, D)
    y = b.batch_norm(b.op("MatMul", x, b.random(D, D)), D)
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 1, "BatchNormalization": 1}


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_folds_lora(rank):
    """x W + s (x A) B -> x (W + s A B)."""
    b = Builder()
    x = b.input(*["n", 3][: rank - 2], "m", 16)
    low = b.op("MatMul", b.op("MatMul", x, b.random(16, 2)), b.random(2, 12))
    base = b.op("MatMul", x, b.random(16, 12))
    y = b.op("Add", base, b.op("Mul", low, b.constant(0.25)))
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 1}


def test_folds_lora_with_biases():
    b = Builder()
    x = b.input("n", 3, 16)
    low = b.op("MatMul", b.op("MatMul", x, b.random(16, 2)), b.random(2, 12))
    base = b.op("Add", b.random(12), b.op("MatMul", x, b.random(16, 12)))
    y = b.op("Add", base, b.op("Mul", low, b.constant(0.25)))
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 1, "Add": 1}


def test_folds_parallel_gemms():
    b = Builder()
    x = b.input("n", 16)
    low = b.op("Gemm", b.op("Gemm", x, b.random(2, 16), b.random(2), transB=1), b.random(2, 12))
    y = b.op("Sub", b.op("Gemm", x, b.random(16, 12), b.random(12), alpha=1.5), low)
    assert optimized(b.model(y), *SIZES).ops == {"Gemm": 1}


def test_refuses_bottleneck_for_its_cost():
    b = Builder()
    x = b.input("n", 256)
    y = b.op("MatMul", b.op("MatMul", x, b.random(256, 8)), b.random(8, 256))
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 2}


def test_folds_residual_linear():
    b = Builder()
    x = b.input("n", 3, D)
    y = b.op("Add", x, b.op("MatMul", x, b.random(D, D)))
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 1}


@pytest.mark.parametrize("other", ["Gemm", "Identity"])
def test_refuses_sum_with_a_transposed_gemm(other):
    """x W + x' W, and x + x' W, of a square x."""
    b = Builder()
    x = b.input(D, D)
    plain = b.op("Gemm", x, b.random(D, D), b.random(D)) if other == "Gemm" else x
    turned = b.op("Gemm", x, b.random(D, D), b.random(D), transA=1)
    folded = optimized(b.model(b.op("Add", plain, turned)))
    assert folded.ops == {"Gemm": 1 + (other == "Gemm"), "Add": 1}


def test_folds_parallel_transposed_gemms():
    b = Builder()
    x = b.input(4, "n")
    parts = [b.op("Gemm", x, b.random(4, D), b.random(D), transA=1) for _ in range(2)]
    assert optimized(b.model(b.op("Add", *parts)), *SIZES).ops == {"Gemm": 1}


def test_refuses_scale_in_front_of_transposed_gemm_on_the_wrong_axis():
    b = Builder()
    x = b.input(D, D)
    y = b.op("Gemm", b.op("Mul", x, b.random(D)), b.random(D, D), b.random(D), transA=1)
    assert optimized(b.model(y)).ops == {"Gemm": 1, "Mul": 1}


@pytest.mark.parametrize("shape", [(D,), (2, D, D)])
def test_matches_for_matmul_constants_of_other_ranks(shape):
    b = Builder()
    x = b.input(2, D, D)
    y = b.op("MatMul", x, b.random(*shape))
    optimized(b.model(b.op("Mul", y, b.constant(0.3))))


def test_matches_for_matmul_of_a_vector():
    b = Builder()
    x = b.input(D)
    y = b.op("Mul", b.op("MatMul", x, b.random(D, D)), b.random(D))
    optimized(b.model(y))


def test_folds_concat_of_linear_layers_along_features():
    b = Builder()
    x = b.input("n", "m", 16)
    y = b.op("Concat", *(b.op("MatMul", x, b.random(16, k)) for k in (3, 5)), axis=-1)
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 1}


def test_refuses_concat_of_linear_layers_along_the_sequence():
    b = Builder()
    x = b.input("n", D, D)
    y = b.op("Concat", *(b.op("MatMul", x, b.random(D, D)) for _ in range(2)), axis=1)
    assert optimized(b.model(y), *SIZES).ops == {"MatMul": 2, "Concat": 1}


def test_folds_split_of_one_linear_layer_in_attention():
    """Slices of a fused q, k, v projection that are scaled each."""
    b = Builder()
    x = b.input("n", "m", 8)
    y = b.op("Add", b.op("MatMul", x, b.random(8, 12)), b.random(12))
    q, k, v = b.ops("Split", y, outputs=3, axis=2)
    q = b.op("Mul", q, b.constant(0.35))
    score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    folded = optimized(b.model(b.op("MatMul", b.op("Softmax", score, axis=-1), v)), *SIZES)
    assert folded.ops["Softmax"] == 1


def test_folds_conv1d_beside_linear_on_another_view():
    """A square signal that a Conv reads along one axis and a MatMul along the other."""
    b = Builder()
    x = b.input(D, D, D)
    conv = b.op("Mul", b.conv(x, D, D, (1,)), b.random(D, 1))
    linear = b.op("Mul", b.op("MatMul", x, b.random(D, D)), b.random(D))
    y = b.op("Add", conv, linear)
    folded = optimized(b.model(y))
    assert folded.ops == {"Conv": 1, "MatMul": 1, "Add": 1}


def test_refuses_product_of_two_computed_matrices():
    b = Builder()
    x, z = b.input(2, D, D), b.input(2, D, D, name="z")
    y = b.op("Mul", b.op("MatMul", x, z), b.random(D))
    folded = optimized(b.model(b.op("MatMul", y, b.random(D, D))))
    assert folded.ops == {"MatMul": 2}
    assert "MatMul: a product of two tensors that are both computed" in folded.reasons


def test_refuses_matmul_whose_input_is_of_unknown_rank():
    b = Builder()
    x = b.input("n", "m", D)
    shape = b.input("k", name="shape", elem_type=TensorProto.INT64)
    y = b.op("MatMul", b.op("Reshape", x, shape), b.random(D, D), output="product")
    y = b.op("Mul", y, b.random(D), output="y")
    nodes, given = (
        b.nodes,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", "m", D))
            for name in ("product", "y")
        ],
    )
    model = build(nodes, b.inputs, given[1:], b.initializers, given[:1])
    values = np.random.default_rng(3).standard_normal((3, 2, D)).astype(np.float32)
    folded = optimized(model, feeds=[{"x": values, "shape": np.array([2, 3, D])}])
    assert folded.ops == {"Reshape": 1, "MatMul": 1, "Mul": 1}
    assert refusal(model, "MatMul", 3) == "the rank of its input is not known"


@pytest.mark.parametrize(
    ("shape", "reason"), [((1, 1, D), "adds dimensions"), ((3,), "widens the tensor")]
)
def test_refuses_gemm_bias_that_does_not_fit(shape, reason):
    b = Builder()
    y = b.op("Gemm", b.input("n", D), b.random(D, D), b.random(*shape))
    model = b.model(b.batch_norm(y, D))
    left_alone(model)
    assert refusal(model, "Gemm", 2) == f"its constant of shape {list(shape)} {reason}"
