"""Tensors of two models that are nearly the same by chance, and what lies between named ones."""

import numpy as np

import onnxfuse
from tests.lift.building import Builder
from tests.parity.breaking import changed

SHIFT = 2e-5


def conv_and_shift(name, moved=0.0, wrong=0.0):
    """A Conv and an Add of 0.5, part of which may be in the Conv's bias already."""
    b = Builder()
    x = b.input(2, 3, 9, 9)
    weight, bias = b.random(4, 3, 3, 3), b.values(4)
    made = b.op("Conv", x, weight, b.constant(bias + moved), output=name)
    rest = np.full((4, 1, 1), 0.5 - moved)
    rest[2] += wrong
    return b.model(b.op("Add", made, b.constant(rest), output="y"))


def check(first, second):
    return onnxfuse.check(first, second, bisect=True, threads=1)


def test_a_shift_done_sooner_is_no_error():
    assert check(conv_and_shift("conv"), conv_and_shift("other", SHIFT)).agrees


def test_an_error_behind_a_shift_done_sooner_is_named():
    found = check(conv_and_shift("conv"), conv_and_shift("other", SHIFT, wrong=SHIFT / 2))
    assert not found.agrees
    assert (found.divergence.tensor, found.divergence.channel) == ("y", 2)
    assert [kind for _, kind in found.divergence.replaced] == ["Conv", "Add"]


def test_a_shift_forgotten_is_named_by_its_other_name():
    """Where the rest is as before, the tensor of another name is the one that is off."""
    model, other = conv_and_shift("conv"), conv_and_shift("other", SHIFT)
    rest = other.graph.node[1].input[1]
    broken = changed(other, rest, np.full((4, 1, 1), 0.5))
    found = check(model, broken)
    assert not found.agrees
    assert (found.divergence.tensor, found.divergence.counterpart) == ("other", "conv")


def layered(first, second):
    """Two Convs, the last scaled by two factors one after the other and transposed."""
    b = Builder()
    x = b.input(2, 3, 9, 9)
    relu = b.op("Relu", b.conv(x, 3, 4, output="conv"), output="relu")
    scaled = b.op("Mul", b.conv(relu, 4, 4), b.constant([first]), output=f"scaled_by_{first}")
    last = b.op("Mul", scaled, b.constant([second], "factor"))
    return b.model(b.op("Transpose", last, perm=[0, 2, 3, 1], output="y"))


def test_what_a_tensor_replaces_ends_at_tensors_that_both_have():
    model, other = layered(1.5, 2.0), layered(2.5, 1.2)
    assert check(model, other).agrees
    found = check(model, changed(other, "factor", np.array([1.2 * (1 + 1e-3)])))
    assert not found.agrees
    assert [kind for _, kind in found.divergence.replaced] == ["Mul", "Mul"]
