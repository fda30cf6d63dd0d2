"""Channels that carry nothing are left out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.rewrites.idle import (
    DEAD,
    LEFT,
    SIZES,
    C,
    behind,
    conv,
    dying,
    folds,
    gelu,
    matrix,
    start,
    thinned,
    weights,
)

ACTIVATIONS = {
    "Relu": lambda b, x: b.op("Relu", x),
    "LeakyRelu": lambda b, x: b.op("LeakyRelu", x, alpha=0.2),
    "PRelu": lambda b, x: b.op("PRelu", x, b.random(C, 1, 1)),
    "PRelu, one slope": lambda b, x: b.op("PRelu", x, b.random(1)),
    "Clip": lambda b, x: b.op("Clip", x, b.constant(-0.5), b.constant(0.7)),
    "Clip above": lambda b, x: b.op("Clip", x, "", b.constant(0.7)),
    "Sigmoid": lambda b, x: b.op("Sigmoid", x),
    "HardSigmoid": lambda b, x: b.op("HardSigmoid", x, alpha=0.3, beta=0.4),
    "HardSwish": lambda b, x: b.op("HardSwish", x),
    "Softplus": lambda b, x: b.op("Softplus", x),
    "Tanh": lambda b, x: b.op("Tanh", x),
    "SiLU": lambda b, x: b.op("Mul", x, b.op("Sigmoid", x)),
    "square": lambda b, x: b.op("Mul", x, x),
    "Max": lambda b, x: b.op("Max", x, b.random(1, C, 1, 1)),
    "Exp": lambda b, x: b.op("Exp", b.op("Neg", b.op("Abs", x))),
    "scale": lambda b, x: b.op("Tanh", b.op("Mul", b.op("Tanh", x), b.random(C, 1, 1))),
    "shift": lambda b, x: b.op("Tanh", b.op("Sub", b.random(1, C, 1, 1), b.op("Tanh", x))),
    "an image of shifts": lambda b, x: b.op("Tanh", x),
    "norm": lambda b, x: b.op("Relu", b.batch_norm(b.op("Tanh", x), C)),
}


@pytest.mark.parametrize("bias", [-2.0, 0.5, True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_through_every_activation(name, bias):
    b = Builder()
    y = behind(b, ACTIVATIONS[name](b, dying(b, bias=bias)))
    folded = thinned(b.model(y))
    assert weights(folded)[0] == [LEFT, 6, 1, 1]
    assert weights(folded)[-1] == [5, LEFT, 1, 1]


def test_a_gelu_that_is_written_out():
    b = Builder(12)
    y = behind(b, gelu(b, dying(b), (1,)), bias=False)
    folded = thinned(b.model(y))
    (fold,) = folds(folded)
    assert fold.formula == "20 of 32 channels carry nothing: 16 remain"
    assert [op for _, op in fold.replaced] == list(fold.nodes)
    assert len(folded.model.graph.node[-1].input) == 3
    assert all(node.input[0] == "x" or "/kept" in node.input[0] for node in folded.model.graph.node)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 20, 22])
def test_every_opset(opset):
    b = Builder(opset)
    x = b.op("Gelu", dying(b)) if opset >= 20 else b.op("Sigmoid", dying(b))
    thinned(b.model(behind(b, x)))


def test_float16():
    b = Builder(elem_type=TensorProto.FLOAT16)
    thinned(b.model(behind(b, b.op("Relu", dying(b)))))


def test_double():
    b = Builder(elem_type=TensorProto.DOUBLE)
    x = b.op("MatMul", b.input("n", 6), b.constant(matrix(b, 6, C, DEAD)))
    thinned(b.model(b.op("MatMul", b.op("Relu", x), b.random(C, 5))))


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 2)])
def test_every_rank(kernel):
    b = Builder()
    sizes = {f"s{axis}": 7 + axis for axis in range(len(kernel))}
    x = b.input("n", 3, *sizes)
    x = b.op("Relu", conv(b, x, 3, C, kernel, dead=DEAD))
    thinned(b.model(behind(b, x, kernel=kernel)), {"n": 2, **sizes})


@pytest.mark.parametrize(
    ("count", "dead", "left"),
    [
        (32, 16, 16),
        (64, 20, 48),
        (64, 33, 32),
        (48, 48, 16),
        (40, 10, 32),
        (40, 30, 16),
        (17, 1, 16),
    ],
)
def test_whole_blocks_go(count, dead, left):
    b = Builder()
    x = b.op("Tanh", conv(b, start(b), 6, count, dead=range(dead)))
    thinned(b.model(behind(b, x, count)), left=left, count=count)


def test_what_a_padded_layer_reads_may_be_zero():
    """The constant is 0 behind a Relu, inside the image and outside."""
    for how in ({"pads": [1, 0, 1, 2]}, {"auto_pad": "SAME_UPPER"}):
        b = Builder()
        x = b.op("Relu", dying(b, bias=-1.0))
        folded = thinned(b.model(behind(b, x, kernel=(3, 3), bias=False, **how)))
        assert len(folded.model.graph.node[-1].input) == 2


def test_no_padding_by_a_mode():
    for mode, kernel in (("SAME_LOWER", (1, 1)), ("VALID", (3, 3))):
        b = Builder()
        thinned(b.model(behind(b, b.op("Tanh", dying(b)), kernel=kernel, auto_pad=mode)))


def test_columns_of_zeros_take_whatever_there_is():
    b = Builder()
    x = b.op("Tanh", conv(b, start(b), 6, C, (3, 3)))
    thinned(b.model(behind(b, x, kernel=(3, 3), pads=[1] * 4, unread=DEAD)))


def test_every_reader_has_to_do_without():
    """One reads constants, the other one zeros: ten channels both do without, and ten more."""
    b = Builder()
    x = b.op("Tanh", dying(b, dead=range(10)))
    padded = behind(b, x, kernel=(3, 3), pads=[1] * 4, unread=range(25))
    thinned(b.model(padded, conv(b, x, C, 4, unread=range(8, 20))))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_depthwise_layer_in_between(multiplier, bias):
    """Zeros behind a Relu, then its bias; of one that it filters by zeros no input is needed."""
    b = Builder()
    x = b.op("Relu", dying(b, bias=-1.0, dead=range(10)))
    M = multiplier * C
    dead = range(9 * multiplier, 20 * multiplier)
    x = conv(b, x, C, M, (3, 3), dead=dead, group=C, pads=[1] * 4, bias=bias)
    folded = thinned(b.model(behind(b, b.op("Tanh", x), M)))
    assert weights(folded) == [
        [16, 6, 1, 1],
        [16 * multiplier, 1, 3, 3],
        [5, 16 * multiplier, 1, 1],
    ]


def test_a_depthwise_layer_without_padding_passes_constants():
    b = Builder()
    x = conv(b, b.op("Tanh", dying(b)), C, C, (3, 3), group=C)
    thinned(b.model(behind(b, b.op("Tanh", x))))


def test_a_trunk_whose_branches_agree():
    b = Builder()
    x = dying(b)
    for _ in range(2):
        inner = b.op("Relu", conv(b, b.op("Relu", x), C, 8))
        x = b.op("Add", conv(b, inner, 8, C, dead=range(2, 24)), x)
    folded = thinned(b.model(behind(b, b.op("Relu", x))))
    assert weights(folded)[-1] == [5, LEFT, 1, 1]


def test_a_layer_that_reads_what_it_is_added_to():
    b = Builder()
    x = b.op("Tanh", dying(b))
    y = b.op("Tanh", b.op("Add", x, b.op("Relu", conv(b, x, C, C, dead=DEAD))))
    folded = thinned(b.model(behind(b, y)))
    assert weights(folded)[1] == [LEFT, LEFT, 1, 1]


def test_layers_that_share_a_weight():
    b = Builder()
    x, z = start(b), start(b, name="z")
    first, second = matrix(b, 6, C, DEAD).T[..., None, None], b.values(5, C, 1, 1)
    names = b.constant(first), b.constant(second)
    ys = []
    for given in (x, z, x):
        inner = b.op("Conv", given, names[0], b.random(C))
        inner = b.op("Tanh" if given == x else "Sigmoid", inner)
        ys.append(b.op("Tanh", b.op("Conv", inner, names[1], b.random(5))))
    whole = b.op("Tanh", b.op("Conv", b.input("n", C, "h", "w", name="u"), names[1]))
    folded = optimized(b.model(*ys, whole), *SIZES)
    assert len(folds(folded)) == 3
    assert sorted(weights(folded)) == sorted([[16, 6, 1, 1], [5, 16, 1, 1]] * 3 + [[5, C, 1, 1]])
    assert sum(list(t.dims) == [16, 6, 1, 1] for t in folded.model.graph.initializer) == 1


def test_one_layer_after_the_other():
    """What the first no longer makes, the second no longer reads; and its own filters are dead."""
    b = Builder()
    x = start(b)
    for inputs, outputs, dead in ((6, 64, 40), (64, 48, 20), (48, 32, 18)):
        x = b.op("Tanh", conv(b, x, inputs, outputs, dead=range(dead)))
    folded = optimized(b.model(behind(b, x)), *SIZES)
    assert len(folds(folded)) == 3
    assert weights(folded) == [[32, 6, 1, 1], [32, 32, 1, 1], [16, 32, 1, 1], [5, 16, 1, 1]]


def test_what_only_channels_that_go_need_goes_next():
    """Columns that the filters left do not read are zero then."""
    b = Builder()
    x = b.op("Tanh", conv(b, start(b), 6, 64))
    weight = b.values(C, 64, 1, 1)
    weight[16:, 20:] = 0
    x = b.op("Tanh", b.op("Conv", x, b.constant(weight), b.random(C)))
    folded = optimized(b.model(behind(b, x, unread=range(16))), *SIZES)
    assert weights(folded) == [[32, 6, 1, 1], [16, 32, 1, 1], [5, 16, 1, 1]]


def test_bodies():
    b = Builder()
    x = start(b)
    inner = Builder(prefix="in_", seed=1)
    y = behind(inner, inner.op("Relu", conv(inner, x, 6, C, dead=DEAD)))
    out = onnx.helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    full = onnx.helper.make_graph(inner.nodes, "full", [], [out], inner.initializers)
    plain = onnx.helper.make_tensor_value_info("plain", TensorProto.FLOAT, None)
    node = onnx.helper.make_node("Relu", [x], ["plain"])
    empty = onnx.helper.make_graph([node], "empty", [], [plain])
    c = b.input(1, name="c", elem_type=TensorProto.BOOL)
    model = b.model(b.op("If", c, then_branch=full, else_branch=empty))
    folded = optimized(model, *SIZES, truth_runs=False)
    assert len(folds(folded)) == 1


def test_denormal_filters_are_dead():
    """As a training with weight decay leaves them, where a BatchNormalization folds."""
    b = Builder()
    weight = b.values(C, 6, 1, 1)
    weight[list(DEAD)] *= 1e-39
    x = b.batch_norm(b.op("Conv", start(b), b.constant(weight), b.random(C)), C)
    folded = optimized(b.model(behind(b, b.op("Tanh", x))), *SIZES)
    assert weights(folded) == [[LEFT, 6, 1, 1], [5, LEFT, 1, 1]]


def test_denormal_columns_are_not_read():
    b = Builder()
    weight = b.values(5, C, 1, 1)
    weight[:, list(DEAD)] *= 1e-39
    x = b.op("Tanh", conv(b, start(b), 6, C))
    folded = thinned(b.model(b.op("Conv", x, b.constant(weight, "w"), b.random(5))))
    assert folded.report.flushed == {"w": 5 * len(DEAD)}


def test_a_pruned_network():
    """60 % of the filters, at random; of every layer as many go as fill blocks."""
    rng = np.random.default_rng(5)
    b = Builder()
    x, inputs = start(b), 6
    for outputs in (64, 96, 128):
        dead = rng.permutation(outputs)[: int(0.6 * outputs)]
        x = b.op("Relu", conv(b, x, inputs, outputs, (3, 3), dead=dead, bias=False))
        inputs = outputs
    model = b.model(b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", x)), b.random(128, 4)))
    folded = optimized(model, *SIZES)
    assert weights(folded) == [[32, 6, 3, 3], [48, 32, 3, 3], [64, 48, 3, 3]]
    assert folded.report.after.parameter_bytes < 0.3 * folded.report.before.parameter_bytes


def test_a_slimmed_network():
    """Scales of BatchNormalizations are 0, behind a Conv and in front of one."""
    b = Builder()
    x = start(b)

    def norm(x: str, channels: int, dead: int) -> str:
        scale = b.values(channels)
        scale[:dead] = 0
        rest = [b.random(channels), b.random(channels), b.positive(channels)]
        return b.op("Relu", b.op("BatchNormalization", x, b.constant(scale), *rest))

    x = norm(conv(b, x, 6, 64, (3, 3), bias=False), 64, 40)
    x = b.op("Concat", *(b.op("Sigmoid", conv(b, x, 64, 32)) for _ in range(2)), axis=1)
    folded = optimized(b.model(behind(b, norm(x, 64, 50), 64)), *SIZES)
    assert weights(folded) == [[32, 6, 3, 3], [16, 32, 1, 1], [16, 32, 1, 1], [5, 32, 1, 1]]


def test_a_skipped_step_leaves_all():
    b = Builder()
    model = b.model(behind(b, b.op("Relu", dying(b))))
    for skip in ("channels", "Relu", "Conv"):
        assert folds(optimized(model, *SIZES, skip=[skip])) == []


def test_the_report_says_what_went():
    b = Builder()
    result = onnxfuse.optimize(b.model(behind(b, b.op("Relu", dying(b)))))
    (fold,) = result.report.folds
    assert (fold.step, fold.source) == ("channels", "x")
    assert fold.target == result.model.graph.output[0].name
    assert fold.nodes == ("Conv", "Relu", "Conv")
    assert fold.after[0].settings == "1x1, 6 -> 16"
    assert fold.after[0].shape == ("n", 16, "h", "w")
    assert fold.certificate.shapes == ((2, 6, 6, 4),)
