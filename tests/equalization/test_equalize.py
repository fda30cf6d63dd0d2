"""Scales and shifts of channels: what changes, what stays, and that nothing else does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxfuse.equalization import equalize
from onnxfuse.errors import ModelError
from tests.equalization.equalizing import (
    equalized,
    is_changed,
    samples,
    uneven,
    weights,
)
from tests.lift.building import Builder, same

C = 8
SAME = {"pads": same((3, 3))}


def between(make, *, opset=17, **settings):
    """Two layers with something between them."""
    b = Builder(opset, **settings)
    x = uneven(b, b.input("n", 3, 8, 8), 3, C, **SAME)
    return b.model(b.conv(make(b, x), C, 4, pads=[1] * 4))


def constant(b, value):
    return b.constant(np.float32(value))


THROUGH = {
    "nothing": lambda b, x: x,
    "Relu": lambda b, x: b.op("Relu", x),
    "LeakyRelu": lambda b, x: b.op("LeakyRelu", x, alpha=0.1),
    "PRelu": lambda b, x: b.op("PRelu", x, b.positive(C, 1, 1)),
    "Clip from zero": lambda b, x: b.op("Clip", x, constant(b, 0.0)),
    "MaxPool": lambda b, x: b.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePool": lambda b, x: b.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
    "Identity": lambda b, x: b.op("Identity", x),
    "Relu, MaxPool": lambda b, x: b.op("MaxPool", b.op("Relu", x), kernel_shape=[2, 2]),
    "Resize": lambda b, x: b.op(
        "Resize", x, "", b.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    ),
    "Add to itself": lambda b, x: b.op("Add", x, x),
    "Split, Concat": lambda b, x: b.op(
        "Concat", *reversed(b.ops("Split", x, axis=1, outputs=2)), axis=1
    ),
    "Slice, Concat": lambda b, x: b.op(
        "Concat", b.op("Slice", x, b.constant([2]), b.constant([C]), b.constant([1])),
        b.op("Slice", x, b.constant([0]), b.constant([2]), b.constant([1])), axis=1,
    ),
    "two Transposes": lambda b, x: b.op(
        "Transpose", b.op("Relu", b.op("Transpose", x, perm=[0, 2, 3, 1])), perm=[0, 3, 1, 2]
    ),
    "a gate": lambda b, x: b.op(
        "Mul", x, b.op("Sigmoid", b.conv(b.op("GlobalAveragePool", x), C, C, (1, 1)))
    ),
    "a residual": lambda b, x: b.op("Add", x, uneven(b, b.op("Relu", x), C, C, **SAME)),
    "a depthwise layer": lambda b, x: uneven(b, b.op("Relu", x), C, C, group=C, **SAME),
    "a grouped layer": lambda b, x: uneven(b, b.op("Relu", x), C, C, group=2, **SAME),
    "ConvTranspose": lambda b, x: b.op(
        "ConvTranspose", b.op("Relu", x), b.random(C, C // 4, 3, 3), b.random(C), group=4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", THROUGH)
def test_scales_go_through(name):
    model = between(THROUGH[name], opset=13 if name == "Split, Concat" else 17)
    result = equalized(model, n=2)
    assert is_changed(result, model)
    assert not result.refusals
    assert all(made.certificate.error <= made.certificate.allowed for made in result.nodes)


FIXED = {
    "Sigmoid": lambda b, x: b.op("Sigmoid", x),
    "HardSwish": lambda b, x: b.op("HardSwish", x),
    "Clip to six": lambda b, x: b.op("Clip", x, constant(b, 0.0), constant(b, 6.0)),
    "Clip from one": lambda b, x: b.op("Clip", x, constant(b, 1.0)),
    "an Add of a constant": lambda b, x: b.op("Add", x, b.random(1, C, 1, 1)),
    "an Add of an input": lambda b, x: b.op("Add", x, b.input("n", C, 8, 8, name="z")),
    "an Add that widens": lambda b, x: b.op("Add", x, b.op("GlobalAveragePool", x)),
    "a Mul with itself": lambda b, x: b.op("Mul", x, x),
    "PRelu with a slope below zero": lambda b, x: b.op("PRelu", x, b.op("Exp", x)),
    "a channel shuffle": lambda b, x: b.op(
        "Reshape",
        b.op("Transpose", b.op("Reshape", x, b.constant([0, 2, C // 2, 8, 8])),
             perm=[0, 2, 1, 3, 4]),
        b.constant([0, C, 8, 8]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FIXED if "slope" not in name])
def test_what_does_not_let_scales_through_keeps_them(name):
    model = between(FIXED[name])
    assert not is_changed(equalized(model, n=2), model)


def test_keeps_a_tensor_that_is_an_output():
    b = Builder()
    x = b.op("Relu", uneven(b, b.input("n", 3, 8, 8), 3, C))
    model = b.model(x, b.conv(x, C, 4))
    assert not is_changed(equalized(model, n=2), model)


def test_keeps_a_tensor_that_a_body_reads():
    b = Builder()
    x = b.op("Relu", uneven(b, b.input("n", 3, 8, 8), 3, C), output="inner")
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["inner"], [f"of_{op}"])], op, [],
            [helper.make_tensor_value_info(f"of_{op}", TensorProto.FLOAT, None)],
        )
        for op in ("Sigmoid", "Tanh")
    ]  # fmt: skip
    given = b.constant(np.array(True), elem_type=TensorProto.BOOL)
    chosen = b.op("If", given, then_branch=branches[0], else_branch=branches[1])
    model = b.model(b.op("Add", b.conv(x, C, C, (1, 1)), chosen))
    assert not is_changed(equalized(model, n=2), model)


def test_keeps_layers_that_share_a_weight():
    b = Builder()
    x = uneven(b, b.input("n", C, 8, 8), C, C, **SAME)
    weight = b.random(C, C, 3, 3)
    x = b.op("Conv", b.op("Relu", x), weight, pads=[1] * 4)
    model = b.model(b.op("Conv", b.op("Relu", x), weight))
    assert not is_changed(equalized(model, n=2), model)


def test_keeps_layers_that_share_a_bias():
    b = Builder()
    bias = b.random(C)
    x = b.op("Conv", b.input("n", C, 8, 8), b.random(C, C, 3, 3), bias)
    model = b.model(b.op("Conv", b.op("Relu", x), b.random(C, C, 3, 3), bias))
    assert not is_changed(equalized(model, n=2), model)


def test_keeps_a_weight_that_can_be_overridden():
    b = Builder()
    x = uneven(b, b.input("n", 3, 8, 8), 3, C)
    model = b.model(b.conv(b.op("Relu", x), C, 4), list_initializers=True)
    assert not is_changed(equalized(model, n=2), model)


def test_ir_version_3_lists_its_weights_as_inputs():
    b = Builder(opset=8)
    x = uneven(b, b.input(1, 3, 8, 8), 3, C)
    model = b.model(b.conv(b.op("Relu", x), C, 4), ir_version=3, list_initializers=True)
    result = equalized(model)
    assert is_changed(result, model)
    assert [value.name for value in result.model.graph.input] == [
        value.name for value in model.graph.input
    ]


@pytest.mark.parametrize("kind", ["Gemm", "Gemm transposed", "MatMul", "MatMul from the left"])
def test_matrices(kind):
    b = Builder()
    left = kind.endswith("left")
    x = b.input(*((6, "n") if left else ("n", 6)))
    sizes = 2.0 ** b.rng.uniform(-4, 4, C)
    first, last = b.values(6, C) * sizes, b.values(C, 5)
    if kind.startswith("Gemm"):
        turned = kind.endswith("transposed")
        turn = np.transpose if turned else np.asarray
        bias = b.constant(b.values(C) * sizes), b.random(1, 5)
        x = b.op("Gemm", x, b.constant(turn(first)), bias[0], transB=int(turned), alpha=0.5)
        x = b.op("Gemm", b.op("Relu", x), b.constant(turn(last)), bias[1], transB=int(turned))
    elif left:
        x = b.op("Relu", b.op("MatMul", b.constant(first.T), x))
        x = b.op("MatMul", b.constant(last.T), x)
    else:
        x = b.op("Relu", b.op("MatMul", x, b.constant(first)))
        x = b.op("MatMul", x, b.constant(last))
    model = b.model(x)
    assert is_changed(equalized(model, n=4), model)


def test_batches_of_matrices():
    b = Builder()
    x = b.op("MatMul", b.input("n", 2, 5, 6), b.random(2, 6, C))
    model = b.model(b.op("MatMul", b.op("Relu", x), b.random(1, C, 3)))
    assert is_changed(equalized(model, n=4), model)


def test_flattened_channels_keep_theirs():
    b = Builder()
    x = b.op("Relu", uneven(b, b.input("n", 3, 4, 4), 3, C, **SAME))
    x = b.op("Flatten", b.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    model = b.model(b.op("Gemm", x, b.random(C * 4, 5), b.random(5)))
    assert is_changed(equalized(model, n=2), model)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signals_images_and_volumes(rank):
    b = Builder()
    x = b.conv(b.input("n", 3, *(6,) * rank), 3, C, (3,) * rank)
    model = b.model(b.conv(b.op("Relu", x), C, 4, (2,) * rank))
    assert is_changed(equalized(model, n=2), model)


def test_dynamic_sizes_stay():
    b = Builder()
    x = uneven(b, b.input("n", 3, "h", "w"), 3, C, **SAME)
    x = b.op("MaxPool", b.op("Relu", x), kernel_shape=[2, 2])
    model = b.model(b.conv(x, C, 4))
    result = equalized(model, n=2, h=9, w=12)
    assert is_changed(result, model)
    assert result.model.graph.input == model.graph.input
    assert result.model.graph.output == model.graph.output


def test_float16():
    b = Builder(elem_type=TensorProto.FLOAT16)
    x = uneven(b, b.input("n", 3, 8, 8), 3, C)
    model = b.model(b.conv(b.op("Relu", x), C, 4))
    assert is_changed(equalized(model, exact=0.02, n=2), model)


def test_keeps_what_would_lose_digits_in_float16():
    b = Builder(elem_type=TensorProto.FLOAT16)
    small = 2.0**-10 * b.values(C, 3, 3, 3) * (0.5 ** np.arange(C)).reshape(-1, 1, 1, 1)
    x = b.op("Relu", b.op("Conv", b.input("n", 3, 8, 8), b.constant(small)))
    last = np.stack([np.full((C, 3, 3), 6e4), np.full((C, 3, 3), 2.0**-14)])
    model = b.model(b.op("Conv", x, b.constant(last)))
    result = equalized(model, exact=0.02, n=2)
    assert not is_changed(result, model)
    assert "cannot be written in float16" in result.refusals[0][1]


def test_an_operator_that_cannot_be_evaluated_keeps_its_channels():
    """The rest of the model is equalized all the same."""
    b = Builder()
    x = b.op("Relu", uneven(b, b.input("n", 3, 8, 8), 3, C, **SAME))
    x = b.op("LpPool", uneven(b, x, C, C, **SAME), kernel_shape=[2, 2])
    model = b.model(b.conv(x, C, 4))
    assert is_changed(equalized(model, n=2), model)


def test_a_model_without_layers_is_as_it_was():
    b = Builder()
    model = b.model(b.op("Relu", b.input("n", 3)))
    result = equalized(model, n=2)
    assert not result.nodes
    assert result.model == model


def test_is_deterministic():
    model = between(THROUGH["a residual"])
    made = [equalize(model, samples(model)).model.SerializeToString() for _ in range(2)]
    assert made[0] == made[1]


def test_no_samples():
    with pytest.raises(ModelError, match="no samples"):
        equalize(between(THROUGH["Relu"]), [])


def test_samples_that_are_empty():
    model = between(THROUGH["Relu"])
    empty = {"x": np.zeros((0, 3, 8, 8), np.float32)}
    with pytest.raises(ModelError, match="are empty"):
        equalize(model, [empty, empty])


def test_a_sample_that_is_empty_beside_others():
    model = between(THROUGH["Relu"])
    empty = {"x": np.zeros((0, 3, 8, 8), np.float32)}
    usual = samples(model, n=2)
    made = [equalize(model, given) for given in (usual, [empty, *usual, empty])]
    assert made[0].model == made[1].model


@pytest.mark.parametrize("bits", [1, 0, -3])
def test_weights_without_steps(bits):
    model = between(THROUGH["Relu"])
    with pytest.raises(ModelError, match=f"{bits} bits"):
        equalize(model, samples(model), weight_bits=bits)


@pytest.mark.parametrize("value", [np.inf, 3e38], ids=["infinite", "overflowing"])
def test_samples_that_are_not_finite(value):
    model = between(THROUGH["Relu"])
    signs = np.sign(np.random.default_rng(0).standard_normal((1, 3, 8, 8))).astype(np.float32)
    bad = {"x": signs * np.float32(value)}
    with pytest.raises(ModelError, match="not finite on run 0"):
        equalize(model, [bad])


def test_channels_of_different_sizes_become_alike():
    """What is quantized with one step uses more of it in every channel."""
    model = between(THROUGH["Relu"])
    result = equalized(model, n=16)
    inner = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")

    def spread(given: onnx.ModelProto) -> float:
        watched = onnx.ModelProto()
        watched.CopyFrom(given)
        watched.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))
        session = pytest.importorskip("onnxruntime").InferenceSession(
            watched.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        tops = session.run([inner], samples(model, 1)[0])[0].max(axis=(0, 2, 3))
        return float(tops.max() / np.median(tops))

    assert spread(model) > 4
    assert spread(result.model) < 0.75 * spread(model)


def test_dead_channels_are_no_trouble():
    b = Builder()
    weight = b.values(C, 3, 3, 3)
    weight[:3] = 0
    x = b.op("Relu", b.op("Conv", b.input("n", 3, 8, 8), b.constant(weight)))
    last = b.values(4, C, 3, 3)
    last[:, 5] = 0
    model = b.model(b.op("Conv", x, b.constant(last)))
    result = equalized(model, n=2)
    assert all(np.all(np.isfinite(value)) for value in weights(result.model).values())
