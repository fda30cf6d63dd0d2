"""Numbers that 8 bits cannot hold."""

import numpy as np
import pytest

from onnxfuse import quantize
from tests.lift.building import Builder
from tests.quantization.building import QUICK
from tests.quantization.test_quantize import near

TOKENS, WIDTH = 6, 16


def left(result):
    return [(refused.operator, refused.reason) for refused in result.report.left]


def sequences(count=4):
    shape = count, TOKENS, WIDTH
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def attention(masked, how, tokens=TOKENS):
    """Scores of a causal attention, masked as exporters do it."""
    b = Builder()
    x = b.input("n", tokens, WIDTH)
    queries, keys, values = (b.op("MatMul", x, b.random(WIDTH, WIDTH)) for _ in range(3))
    scores = b.op("MatMul", queries, b.op("Transpose", keys, perm=[0, 2, 1]))
    scores = b.op("Mul", scores, b.constant(np.float32(1 / WIDTH)))
    seen = np.tril(np.ones((TOKENS, TOKENS)))
    if how == "Add":
        mask = np.where(seen == 1, 0, masked)
        scores = b.op("Add", scores, b.constant(mask))
    elif how == "Where":
        scores = b.op("Where", b.op("Cast", b.constant(seen), to=9), scores, b.constant(masked))
    elif how == "Gather":  # as much of a larger mask as there are tokens
        mask = b.constant(np.where(np.tril(np.ones((9, 9))) == 1, 0, masked))
        count = b.op("Squeeze", b.op("Gather", b.op("Shape", x), b.constant(np.array([1]))))
        found = b.op("Range", b.constant(np.array(0)), count, b.constant(np.array(1)))
        mask = b.op("Gather", b.op("Gather", mask, found, axis=0), found, axis=1)
        scores = b.op("Add", scores, mask)
    else:  # computed, and in another shape
        hidden = b.op("Sub", b.constant(np.float32(1)), b.op("Clip", b.constant(seen)))
        mask = b.op("Mul", hidden, b.constant(masked))
        scores = b.op("Add", scores, b.op("Unsqueeze", mask, b.constant(np.array([0]))))
        scores = b.op("Reshape", scores, b.constant(np.array([-1, TOKENS, TOKENS])))
    b.op("MatMul", b.op("Softmax", scores, axis=-1), values, output="y")
    return b.model("y")


MASKS = [
    (how, masked)
    for how in ("Add", "Where", "computed")
    for masked in (-10.0, -1e4, -3.4028235e38, -np.inf)
    if how != "computed" or np.isfinite(masked)  # 0 * -inf is not a number
]


@pytest.mark.parametrize(("how", "masked"), MASKS)
def test_masks_in_front_of_a_softmax(how, masked):
    model = attention(masked, how)
    result = quantize(model, {"x": sequences()}, weight_bits=7, **QUICK)
    assert [(q.count, q.total) for q in result.report.operators] == [(5, 5)]
    assert near(model, result.model, {"x": sequences()}, 25)


@pytest.mark.parametrize("masked", [-3.4028235e38, -np.inf])
@pytest.mark.parametrize(("method", "decibels"), [("percentile", 25), ("entropy", 10)])
def test_masks_have_no_histogram(method, decibels, masked):
    """The library would make one of what stays float, too."""
    model = attention(masked, "Add")
    data = {"x": sequences()}
    result = quantize(model, data, method=method, weight_bits=7, **QUICK)
    assert [(q.count, q.total) for q in result.report.operators] == [(5, 5)]
    assert near(model, result.model, data, decibels)


@pytest.mark.parametrize("masked", [-1e4, -np.inf])
def test_masks_that_were_cut_from_larger_ones(masked):
    model = attention(masked, "Gather", tokens="t")
    data = {"x": sequences()}
    for method in ("minmax", "percentile"):
        result = quantize(model, data, method=method, weight_bits=7, **QUICK)
        assert [(q.count, q.total) for q in result.report.operators] == [(5, 5)]
        assert near(model, result.model, data, 25)


def test_scores_beyond_exponentials():
    b = Builder()
    x = b.input("n", TOKENS, WIDTH)
    wide = b.random(WIDTH, 5, low=50.0, high=90.0)
    t = b.op("Tanh", b.op("MatMul", x, b.random(WIDTH, WIDTH)))
    b.op("Softmax", b.op("MatMul", t, wide), axis=-1, output="y")
    result = quantize(b.model("y"), {"x": sequences()}, weight_bits=7, equalize=False, **QUICK)
    assert left(result) == [("MatMul", "8 bits cannot hold what it makes or reads")]


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_divisors_near_zero(spread):
    """Features over their root mean square, some of them much smaller than others."""
    b = Builder(opset=18)
    x = b.input("n", TOKENS, WIDTH)
    t = b.op("MatMul", x, b.random(WIDTH, WIDTH))
    power = b.op("ReduceMean", b.op("Mul", t, t), b.constant(np.array([-1])), keepdims=1)
    root = b.op("Sqrt", b.op("Add", power, b.constant(np.float32(1e-9))))
    b.op("MatMul", b.op("Div", t, root), b.random(WIDTH, 3), output="y")
    model = b.model("y")
    data = sequences()
    data[:, 0] *= spread
    result = quantize(model, {"x": data}, weight_bits=7, **QUICK)
    # what is smaller than a step of the first layer's output is lost, but for one part in TOKENS
    lost = 10 * np.log10(TOKENS / 2)
    assert near(model, result.model, {"x": data}, 25 if spread == 1 else lost)


def test_logarithms_near_zero():
    b = Builder()
    x = b.input("n", TOKENS, WIDTH)
    t = b.op("Sigmoid", b.op("MatMul", x, b.random(WIDTH, 4)))
    bounds = b.constant(np.float32(1e-6)), b.constant(np.float32(1))
    b.op("Log", b.op("Clip", t, *bounds), output="y")
    model = b.model("y")
    result = quantize(model, {"x": sequences()}, weight_bits=7, **QUICK)
    assert left(result) == []
    assert near(model, result.model, {"x": sequences()}, 25)
