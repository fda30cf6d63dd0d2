"""Proofs of scaled and shifted channels: what is wrong is found."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfuse.affine import Refusal
from onnxfuse.equalization.certifying import Between, Change, certify_changed
from onnxfuse.errors import CertificateError
from onnxfuse.rounding import keeps_digits
from tests.equalization.test_layers import graph_of
from tests.lift.building import Builder

C = 3


def conv_graph():
    b = Builder()
    weight, bias = b.random(C, C, 3, 3, name="w"), b.random(C, name="b")
    y = b.op("Conv", b.input(1, C, 6, 6), weight, bias, output="y", pads=[1] * 4)
    return graph_of(b.model(y))


def scaled(before, behind):
    changes = {"x": Change(1, before, np.zeros(C)), "y": Change(1, behind, np.zeros(C))}
    graph = conv_graph()
    weight, bias = (np.float64(graph.constant(name)) for name in "wb")
    factors = behind.reshape(-1, 1, 1, 1) / before.reshape(1, -1, 1, 1)
    return graph, changes, {"w": weight * factors, "b": bias * behind}


BEFORE, BEHIND = np.array([1.0, 2.0, 3.0]), np.array([0.5, 4.0, 1.0])


def test_right_constants_are_proved():
    graph, changes, after = scaled(BEFORE, BEHIND)
    certificate = certify_changed(graph, 0, changes, {}, after)
    assert certificate.error < 1e-14
    assert len(certificate.shapes) == 2


@pytest.mark.parametrize("name", ["w", "b"])
@pytest.mark.parametrize("off", [1e-3, 1e-6, 1e-8])
def test_a_constant_that_is_off_is_found(name, off):
    """Also in the smallest of the channels."""
    graph, changes, after = scaled(BEFORE, BEHIND * np.array([1e-6, 1.0, 1.0]))
    after[name][0] *= 1 + off
    with pytest.raises(CertificateError, match="differs from what it was"):
        certify_changed(graph, 0, changes, {}, after)


def test_constants_from_before_are_the_old_ones():
    graph, changes, after = scaled(BEFORE, BEHIND)
    before = {"w": 2 * np.float64(graph.constant("w")), "b": 2 * np.float64(graph.constant("b"))}
    with pytest.raises(CertificateError):
        certify_changed(graph, 0, changes, before, after)
    doubled = {name: 2 * value for name, value in after.items()}
    assert certify_changed(graph, 0, changes, before, doubled).error < 1e-14


def test_a_shift_through_padding_is_found():
    graph = conv_graph()
    shift = np.ones(C)
    weight, bias = (np.float64(graph.constant(name)) for name in "wb")
    after = {"b": bias - weight.sum(axis=(1, 2, 3))}
    with pytest.raises(CertificateError):
        certify_changed(graph, 0, {"x": Change(1, np.ones(C), shift)}, {}, after)


def relu_graph():
    b = Builder()
    return graph_of(b.model(b.op("Relu", b.input(1, C, 6, 6), output="y")))


def moved(by):
    return {name: Change(1, np.ones(C), np.full(C, -by)) for name in "xy"}


def test_a_shift_through_a_relu_needs_limits():
    graph = relu_graph()
    limits = {"x": Between(np.full(C, 0.5), np.full(C, np.inf))}
    assert certify_changed(graph, 0, moved(0.5), {}, {}, limits).error == 0
    with pytest.raises(CertificateError):
        certify_changed(graph, 0, moved(0.5), {}, {})
    with pytest.raises(CertificateError):
        certify_changed(graph, 0, moved(0.6), {}, {}, limits)


def test_a_limit_that_does_not_hold_is_found():
    limits = {"y": Between(np.full(C, 0.1), np.full(C, np.inf))}
    with pytest.raises(CertificateError, match="goes beyond what was proved"):
        certify_changed(relu_graph(), 0, {}, {}, {}, limits)


def test_numbers_between_limits():
    low, high = np.array([0.0, -np.inf, 2.0]), np.array([1.0, np.inf, np.inf])
    between = Between(low, high)
    value = np.random.default_rng(0).standard_normal((2, C, 50))
    held = between.within(value)
    assert held[:, 0].min() >= 0
    assert held[:, 0].max() <= 1
    assert np.array_equal(held[:, 1], value[:, 1])
    assert held[:, 2].min() >= 2
    assert between.holds(held)
    assert not between.holds(held - 0.1)


def test_what_cannot_be_evaluated_is_refused():
    b = Builder()
    y = b.op("LpPool", b.input(1, C, 6, 6), output="y", kernel_shape=[2, 2])
    found = certify_changed(graph_of(b.model(y)), 0, {}, {}, {})
    assert isinstance(found, Refusal)


@pytest.mark.parametrize(
    ("value", "like", "kept"),
    [
        (1.0, 1.0, True),
        (7e4, 6e4, False),
        (2.0**-15, 2.0**-14, False),
        (2.0**-15, 2.0**-15, True),
        (0.0, 1.0, True),
    ],
)
def test_digits_in_half_precision(value, like, kept):
    assert keeps_digits(np.array([value]), np.array([like], np.float16)) == kept


def test_what_is_not_a_number_is_no_proof():
    graph, changes, after = scaled(BEFORE, BEHIND)
    after["w"][0, 0, 0, 0] = np.nan
    with pytest.raises(CertificateError, match="by inf"):
        certify_changed(graph, 0, changes, {}, after)
