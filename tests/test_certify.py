"""A wrong fold never gets through."""

from dataclasses import replace

import numpy as np
import pytest

import onnxfuse
from onnxfuse import certify, fold
from onnxfuse.affine import AffineConv, Deferred
from onnxfuse.graph import Graph
from tests.lift.building import Builder, same


def block():
    """conv3x3-BN + conv1x1-BN, stride 2, groups 2."""
    b = Builder()
    x = b.input("n", 4, "h", "w")
    wide = b.conv(x, 4, 6, (3, 3), pads=same((3, 3)), strides=[2, 2], group=2)
    point = b.conv(x, 4, 6, (1, 1), strides=[2, 2], group=2)
    return b.model(b.op("Add", b.batch_norm(wide, 6), b.batch_norm(point, 6)))


def changed(array, change):
    copy = array.copy()
    change(copy)
    return copy


def bias_off(term):
    bias = changed(term.bias, lambda b: b.__setitem__(3, b[3] + 1e-3))
    return replace(term, bias_of=Deferred.of(bias))


def tap_shifted(term):
    return replace(term, weight_of=Deferred.of(np.roll(term.weight, 1, axis=-1)))


def one_weight_off(term):
    weight = changed(term.weight, lambda w: w.__setitem__((0, 0, 0, 0), w[0, 0, 0, 0] * (1 + 1e-6)))
    return replace(term, weight_of=Deferred.of(weight))


def padded_on_the_wrong_side(term):
    p, q, r, s = term.pads
    return replace(term, pads=(p - 1, q, r + 1, s))


def groups_swapped(term):
    weight = np.concatenate(np.split(term.weight, 2)[::-1])
    return replace(term, weight_of=Deferred.of(weight))


@pytest.mark.parametrize(
    "mistake", [bias_off, tap_shifted, one_weight_off, padded_on_the_wrong_side, groups_swapped]
)
def test_a_wrong_map_is_caught(monkeypatch, mistake):
    lower = fold.lower

    def wrong(graph, term, *names):
        assert isinstance(term, AffineConv)
        return lower(graph, mistake(term), *names)

    monkeypatch.setattr(fold, "lower", wrong)
    with pytest.raises(onnxfuse.CertificateError, match="differs from the nodes it replaces"):
        onnxfuse.optimize(block())


def test_a_right_map_is_certified_at_every_stride_phase():
    (made,) = onnxfuse.optimize(block()).report.folds
    assert made.certificate.error <= 1e-14
    sizes = {shape[2:] for shape in made.certificate.shapes}
    assert {h % 2 for h, _ in sizes} == {w % 2 for _, w in sizes} == {0, 1}


def test_probes_do_not_depend_on_hash_seeds():
    first, second = (onnxfuse.optimize(block()).report.to_json() for _ in range(2))
    assert first == second


def test_nothing_is_excused_where_moving_the_inputs_gives_no_number():
    b = Builder()
    model = b.model(b.op("Sub", b.input(2), b.random(2), output="y"))
    graph = Graph(model.graph, b.opset, 9)
    feeds = {"x": np.array([1.0, np.inf]), **{t.name: np.ones(2) for t in b.initializers}}
    rng = np.random.default_rng(0)
    allowed = certify._conditioned(graph, graph.nodes, feeds, "y", np.zeros(2), rng)
    assert allowed == certify.TOLERANCE


# Padding values that differ by rounding -----------------------------------------------------------


@pytest.mark.parametrize(
    ("off", "explained", "is_allowed"),
    [(1e-6, 1e-6, True), (1e-6, 1e-9, False), (1e-4, 1e-3, False), (3e-11, 0.0, True)],
)
def test_a_gap_at_the_border_is_explained_and_no_more_than_roundings(off, explained, is_allowed):
    """Within what padding values explain, and within 32 roundings of the channel's outputs."""
    expected = np.array([[[0.5, -1.2], [0.3, 0.9]], [[40.0, 3.0], [7.0, -50.0]]])
    gap = np.zeros_like(expected)
    gap[0, 1] = off
    found = certify._border_gap(gap, expected, np.array([explained, 0.0]), 0, np.dtype(np.float32))
    assert found == (pytest.approx(off / 1.2) if is_allowed else None)


def test_refuses_a_border_that_no_rounding_explains(monkeypatch):
    def certified(graph, replaced, lowered, candidate, target):
        exact = Deferred(lambda: np.zeros(candidate.term.out_channels))
        term = replace(candidate.term, border_error_of=exact)
        return certify.certify(graph, replaced, lowered, replace(candidate, term=term), target)

    lower = fold.lower
    monkeypatch.setattr(fold, "certify", certified)
    assert len(onnxfuse.optimize(block()).report.folds) == 1
    monkeypatch.setattr(fold, "lower", lambda g, term, *rest: lower(g, bias_off(term), *rest))
    result = onnxfuse.optimize(block())
    assert not result.report.folds
    assert "its padding is off by more than rounding explains" in str(result.report.refusals)


def test_refuses_probes_of_absurd_size(monkeypatch):
    monkeypatch.setattr(certify, "_MOST_ELEMENTS", 20)
    result = onnxfuse.optimize(block())
    assert not result.report.folds
    assert "its window reaches too far" in str(result.report.refusals)
