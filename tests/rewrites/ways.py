"""Ways to write activations in steps."""

from __future__ import annotations

import math

from tests.lift.building import Builder


def clip(b: Builder, x: str, low: float | None, high: float | None) -> str:
    if b.opset < 11:
        given = {"min": low, "max": high}
        return b.op("Clip", x, **{k: float(v) for k, v in given.items() if v is not None})
    bounds = ["" if v is None else b.constant(float(v)) for v in (low, high)]
    return b.op("Clip", x, *(bounds if high is not None else bounds[:1]))


def shifted(b: Builder, x: str, by: float) -> str:
    return b.op("Add", x, b.constant(float(by)))


def scaled(b: Builder, x: str, by: float) -> str:
    return b.op("Mul", x, b.constant(float(by)))


# Ways to write them ------------------------------------------------------------------------------


def hard_swish_divided(b, x):
    return b.op("Div", b.op("Mul", x, clip(b, shifted(b, x, 3), 0, 6)), b.constant(6.0))


def hard_swish_gate_first(b, x):
    gate = scaled(b, clip(b, b.op("Add", b.constant(3.0), x), 0, 6), 1 / 6)
    return b.op("Mul", gate, x)


def hard_swish_by_relu6(b, x):
    relu = b.op("Relu", shifted(b, x, 3))
    return b.op("Mul", x, b.op("Div", clip(b, relu, None, 6), b.constant([[[6.0]]])))


def hard_swish_by_min_and_max(b, x):
    inner = b.op("Max", b.op("Sub", x, b.constant(-3.0)), b.constant(0.0))
    return b.op("Mul", b.op("Mul", x, b.op("Min", b.constant(6.0), inner)), b.constant(1 / 6))


def hard_swish_before_its_shift(b, x):
    gate = shifted(b, clip(b, scaled(b, x, 1 / 6), -0.5, 0.5), 0.5)
    return b.op("Mul", x, gate)


def hard_swish_of_a_scaled_input(b, x):
    """hard_swish(2 x): the same gate, steeper."""
    return hard_swish_divided(b, scaled(b, x, 2))


HARD_SWISHES = [
    hard_swish_divided,
    hard_swish_gate_first,
    hard_swish_by_relu6,
    hard_swish_by_min_and_max,
    hard_swish_before_its_shift,
]


def silu_by_exp(b, x):
    return b.op("Div", x, shifted(b, b.op("Exp", b.op("Neg", x)), 1))


def silu_by_reciprocal(b, x):
    return b.op("Mul", b.op("Reciprocal", shifted(b, b.op("Exp", scaled(b, x, -1)), 1)), x)


def mish_in_steps(b, x):
    return b.op("Mul", x, b.op("Tanh", b.op("Log", shifted(b, b.op("Exp", x), 1))))


def mish_by_softplus(b, x):
    return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))


def gelu_halved_first(b, x):
    gate = shifted(b, b.op("Erf", b.op("Div", x, b.constant(math.sqrt(2)))), 1)
    return b.op("Mul", scaled(b, x, 0.5), gate)


def gelu_halved_last(b, x):
    gate = shifted(b, b.op("Erf", scaled(b, x, math.sqrt(0.5))), 1)
    return scaled(b, b.op("Mul", x, gate), 0.5)


def gelu_by_distribution(b, x):
    half = scaled(b, b.op("Erf", scaled(b, x, math.sqrt(0.5))), 0.5)
    return b.op("Mul", x, shifted(b, half, 0.5))


def gelu_by_tanh(b, x):
    cubic = scaled(b, b.op("Pow", x, b.constant(3.0)), 0.044715)
    gate = b.op("Tanh", scaled(b, b.op("Add", x, cubic), math.sqrt(2 / math.pi)))
    return b.op("Mul", scaled(b, x, 0.5), shifted(b, gate, 1))


def gelu_by_tanh_factored(b, x):
    square = scaled(b, b.op("Mul", x, x), 0.044715 * math.sqrt(2 / math.pi))
    inner = b.op("Mul", x, shifted(b, square, math.sqrt(2 / math.pi)))
    return b.op("Mul", shifted(b, b.op("Tanh", inner), 1), scaled(b, x, 0.5))


def relu6_by_min(b, x):
    return b.op("Min", b.op("Relu", x), b.constant(6.0))


def relu6_in_two(b, x):
    return clip(b, clip(b, x, None, 6), 0, None)


def leaky_by_max(b, x):
    return b.op("Max", scaled(b, x, 0.1), x)


def leaky_by_two_relus(b, x):
    return b.op("Sub", b.op("Relu", x), scaled(b, b.op("Relu", b.op("Neg", x)), 0.1))


def hard_sigmoid_divided(b, x):
    return b.op("Div", clip(b, shifted(b, x, 3), 0, 6), b.constant(6.0))


WRITTEN = [(way, ["HardSigmoid", "Mul"], 7) for way in HARD_SWISHES]
WRITTEN += [(way, ["Mul", "Sigmoid"], 7) for way in (silu_by_exp, silu_by_reciprocal)]
WRITTEN += [(way, ["Mul", "Softplus", "Tanh"], 7) for way in (mish_in_steps,)]
WRITTEN += [(way, ["Mish"], 18) for way in (mish_in_steps, mish_by_softplus)]
WRITTEN += [(way, ["Gelu"], 20) for way in (gelu_halved_first, gelu_halved_last)]
WRITTEN += [(way, ["Gelu"], 20) for way in (gelu_by_distribution, gelu_by_tanh)]
WRITTEN += [(gelu_by_tanh_factored, ["Gelu"], 20)]
WRITTEN += [(way, ["Clip"], 8) for way in (relu6_by_min, relu6_in_two)]
WRITTEN += [(way, ["LeakyRelu"], 8) for way in (leaky_by_max, leaky_by_two_relus)]
WRITTEN += [(hard_sigmoid_divided, ["HardSigmoid"], 7)]
