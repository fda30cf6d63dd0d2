"""High biases that the next layers take in: where that is exact, and pays."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfuse.equalization.equalize import SHIFTED
from tests.equalization.equalizing import equalized, weights
from tests.lift.building import Builder

C = 6
HIGH = np.linspace(-20, 30, C)


def high(b, x, inputs=C, kernel=(1, 1), **settings):
    """A Conv whose channels lie far apart."""
    names = b.random(C, inputs, *kernel), b.constant(HIGH)
    return b.op("Conv", x, *names, **settings)


def last(b, x, kernel=(1, 1), **settings):
    return b.conv(x, C, 4, kernel, **settings)


def shifted(result):
    return [made.operator for made in result.nodes if made.change == SHIFTED]


def case(make):
    b = Builder()
    x = b.op("Relu", b.conv(b.input("n", 3, 8, 8), 3, C))
    return b.model(make(b, x))


ABSORBED = {
    "at once": lambda b, x: last(b, high(b, x)),
    "by a larger kernel": lambda b, x: last(b, high(b, x), (3, 3)),
    "by a layer in groups": lambda b, x: b.conv(high(b, x), C, 4, (1, 1), group=2),
    "by a Gemm": lambda b, x: b.op(
        "Gemm", b.op("Flatten", b.op("GlobalAveragePool", high(b, x))),
        b.random(C, 3), b.random(3),
    ),
    "by a transposed Gemm": lambda b, x: b.op(
        "Gemm", b.op("Flatten", b.op("GlobalMaxPool", high(b, x))),
        b.random(3, C), b.random(3), transB=1,
    ),
    "by two layers": lambda b, x: (lambda y: b.op("Add", last(b, y), last(b, y)))(high(b, x)),
    "behind MaxPool": lambda b, x: last(b, b.op("MaxPool", high(b, x), kernel_shape=[2, 2])),
    "behind AveragePool": lambda b, x: last(
        b, b.op("AveragePool", high(b, x), kernel_shape=[2, 2])
    ),
    "behind Concat": lambda b, x: b.conv(
        b.op("Concat", x, high(b, x), axis=1), 2 * C, 4, (1, 1)
    ),
    "behind an Add": lambda b, x: last(b, b.op("Add", high(b, x), x)),
    "behind two of them, each its own": lambda b, x: last(b, b.op("Add", high(b, x), high(b, x))),
    "from a padded layer": lambda b, x: last(b, high(b, x, kernel=(3, 3), pads=[1] * 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSORBED)
def test_is_absorbed(name):
    result = equalized(case(ABSORBED[name]), n=2)
    assert shifted(result)
    assert all(made.certificate.error <= made.certificate.allowed for made in result.nodes)


LEFT = {
    "from a layer without a bias": lambda b, x: last(b, b.op(
        "Conv", b.op("Add", x, b.constant(HIGH.reshape(1, C, 1, 1))), b.positive(C, C, 1, 1)
    )),
    "from a Gemm that scales its bias": lambda b, x: b.op("Gemm", b.op(
        "Gemm", b.op("Flatten", b.op("GlobalAveragePool", x)),
        b.random(C, C), b.constant(HIGH), beta=2.0,
    ), b.random(C, 3), b.random(3)),
    "by a layer along another axis": lambda b, x: b.conv(
        b.op("Transpose", high(b, x), perm=[0, 2, 3, 1]), 6, 4, (1, 1)
    ),
    "by a padded layer": lambda b, x: last(b, high(b, x), (3, 3), pads=[1] * 4),
    "by a layer padded by rule": lambda b, x: last(b, high(b, x), (3, 3), auto_pad="SAME_UPPER"),
    "by a layer without a bias": lambda b, x: last(b, high(b, x), bias=False),
    "by a ConvTranspose": lambda b, x: b.op(
        "ConvTranspose", high(b, x), b.random(C, 4, 2, 2), b.random(4)
    ),
    "by a Gemm that scales its bias": lambda b, x: b.op(
        "Gemm", b.op("Flatten", b.op("GlobalAveragePool", high(b, x))),
        b.random(C, 3), b.random(3), beta=2.0,
    ),
    "by one of two readers": lambda b, x: (
        lambda y: b.op("Add", last(b, y), last(b, y, (3, 3), pads=[1] * 4))
    )(high(b, x)),
    "behind a Relu": lambda b, x: last(b, b.op("Relu", high(b, x))),
    "behind a padded AveragePool": lambda b, x: last(b, b.op(
        "AveragePool", high(b, x), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    )),
    "behind LeakyRelu": lambda b, x: last(b, b.op("LeakyRelu", high(b, x))),
    "behind a gate": lambda b, x: last(b, b.op("Mul", high(b, x), b.op("Sigmoid", x))),
    "an Add with itself": lambda b, x: (lambda y: last(b, b.op("Add", y, y)))(high(b, x)),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_is_left(name):
    assert not shifted(equalized(case(LEFT[name]), n=2))


def test_an_output_is_left():
    b = Builder()
    x = high(b, b.input("n", C, 8, 8))
    model = b.model(x, last(b, x))
    assert not shifted(equalized(model, n=2))


def test_channels_that_lie_together_are_left():
    b = Builder()
    x = b.op("Conv", b.input("n", C, 8, 8), b.random(C, C, 1, 1), b.constant(np.zeros(C)))
    assert not shifted(equalized(b.model(last(b, x)), n=2))


# Relu --------------------------------------------------------------------------------------------


def behind_relu(weight, *, gate="Relu", bias=HIGH):
    """Channels that are never below their bias where the weight has no negative numbers."""
    b = Builder()
    x = b.op(gate, b.conv(b.input("n", 3, 8, 8), 3, C))
    x = b.op("Conv", x, b.constant(weight), b.constant(np.abs(bias)), pads=[1] * 4)
    return b.model(last(b, b.op("Relu", x)))


def positive(seed=0):
    return np.random.default_rng(seed).uniform(0, 0.1, (C, C, 3, 3))


@pytest.mark.parametrize("gate", ["Relu", "Sigmoid"])
def test_what_is_never_below_its_bias_is_absorbed_behind_a_relu(gate):
    result = equalized(behind_relu(positive(), gate=gate), n=2)
    assert shifted(result) == ["Conv", "Relu", "Conv"]


def test_a_bounded_input_allows_for_negative_weights():
    """Of a Sigmoid, 9 * C weights down to -0.1 take at most 5.4 away."""
    weight = np.random.default_rng(0).uniform(-0.1, 0.1, (C, C, 3, 3))
    assert shifted(equalized(behind_relu(weight, gate="Sigmoid"), n=2))


def test_a_negative_weight_is_left_behind_a_relu():
    weight = positive()
    weight[:, 0, 1, 1] = -0.01
    assert not shifted(equalized(behind_relu(weight), n=2))


@pytest.mark.parametrize("gate", ["Tanh", "LeakyRelu"])
def test_what_may_be_negative_is_left_behind_a_relu(gate):
    assert not shifted(equalized(behind_relu(positive(), gate=gate), n=2))


def test_what_is_made_of_positive_numbers_may_be_negative():
    b = Builder()
    x = b.op("Neg", b.op("Relu", b.conv(b.input("n", 3, 8, 8), 3, C)))
    x = b.op("Conv", x, b.constant(positive()), b.constant(np.abs(HIGH)))
    assert not shifted(equalized(b.model(last(b, b.op("Relu", x))), n=2))


def test_a_relu_that_is_not_the_first_is_left():
    """What MaxPool makes is as far from zero, but nothing says so."""
    b = Builder()
    x = b.op("Relu", b.conv(b.input("n", 3, 8, 8), 3, C))
    x = b.op("Conv", x, b.constant(positive()), b.constant(np.abs(HIGH)))
    x = b.op("Relu", b.op("Add", b.op("Identity", x), b.op("MaxPool", x, kernel_shape=[1, 1])))
    assert not shifted(equalized(b.model(last(b, x)), n=2))


def test_absorbed_biases_are_what_the_next_layer_gets():
    """c of one layer's bias goes, W c comes to the next one's: in float64, by hand."""
    b = Builder()
    first, second = np.full((C, C, 1, 1), 0.5), b.values(4, C, 2, 2)
    x = b.op(
        "MaxPool",
        b.op("Conv", b.input(2, C, 8, 8), b.constant(first, name="w"), b.constant(HIGH, name="b")),
        kernel_shape=[2, 2],
    )
    names = b.constant(second, name="v"), b.constant(np.zeros(4), name="a")
    model = b.model(b.op("Conv", x, *names))
    result = equalized(model)
    assert shifted(result) == ["Conv", "MaxPool", "Conv"]
    new = {name: value.astype(np.float64) for name, value in weights(result.model).items()}
    scale = new["w"][:, 0, 0, 0] / 0.5
    moved = HIGH * scale - new["b"]
    taken = np.einsum("oihw,i->o", new["v"], moved)
    np.testing.assert_allclose(new["a"], taken, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [1e-3, 1e-9, 1e-15, 0.0])
def test_channels_that_are_almost_constant(size):
    """What a shift leaves of them is of the size of roundings."""
    b = Builder()
    weight = b.values(C, 3, 1, 1)
    weight[::2] *= size
    y = b.op("Conv", b.input(1, 3, 8, 8), b.constant(weight), b.constant(30 + b.values(C)))
    assert shifted(equalized(b.model(last(b, y)))) == ["Conv", "Conv"]


@pytest.mark.parametrize("size", [1e3, 1e7, 1e9])
def test_biases_of_any_size(size):
    """With W c in the next bias, what is random beside it is of the size of roundings."""
    b = Builder()
    names = b.random(C, 3, 1, 1), b.constant(size + b.values(C))
    y = b.op("Conv", b.input(1, 3, 8, 8), *names)
    assert shifted(equalized(b.model(last(b, y)))) == ["Conv", "Conv"]
