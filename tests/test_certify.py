"""A wrong fold never gets through."""

from dataclasses import replace

import numpy as np
import pytest

import onnxfuse
from onnxfuse import certify, fold
from onnxfuse.affine import AffineConv, Deferred, select
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


def padded_by_more(term):
    return replace(term, pads=tuple(p + 2 for p in term.pads))


def one_channel_short(term):
    return select(term, range(term.out_channels - 1))


def one_channel_twice(term):
    return select(term, [*range(term.out_channels), 0])


def other_inputs(term):
    weight = Deferred.of(np.concatenate([term.weight] * 2, axis=1))
    return replace(term, weight_of=weight, in_channels=2 * term.in_channels)


def rounded_at_the_border(certify_it):
    """Certificates for candidates whose padding values somebody rounded."""

    def certified(graph, replaced, lowered, candidate, target):
        error = Deferred(lambda: np.ones(candidate.term.out_channels))
        term = replace(candidate.term, border_error_of=error)
        return certify_it(graph, replaced, lowered, replace(candidate, term=term), target)

    return certified


@pytest.mark.parametrize("is_rounded", [False, True])
@pytest.mark.parametrize(
    "mistake", [padded_by_more, one_channel_short, one_channel_twice, other_inputs]
)
def test_a_map_of_another_shape_is_caught(monkeypatch, mistake, is_rounded):
    lower = fold.lower
    monkeypatch.setattr(fold, "lower", lambda g, term, *rest: lower(g, mistake(term), *rest))
    if is_rounded:
        monkeypatch.setattr(fold, "certify", rounded_at_the_border(certify.certify))
    said = "does not take 'x'" if mistake is other_inputs else "by inf"
    with pytest.raises(onnxfuse.CertificateError, match=said):
        onnxfuse.optimize(block())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far(bad):
    """Also where both sides agree on it: nothing is proved by that."""
    ones = np.ones(3)
    odd = np.array([1.0, bad, 1.0])
    assert certify._difference(odd, ones, ones) == np.inf
    assert certify._difference(ones, odd, ones) == np.inf
    assert certify._difference(odd, odd, ones) == np.inf


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


@pytest.mark.parametrize(("most", "folds"), [(20, 0), (100, 1), (200, 1)])
def test_refuses_probes_of_absurd_size(monkeypatch, most, folds):
    """Two probes of 80 elements are too much together, too; those of the 1x1 Conv are smaller."""
    monkeypatch.setattr(certify, "_MOST_ELEMENTS", most)
    result = onnxfuse.optimize(block())
    assert len(result.report.folds) == folds
    assert ("its window reaches too far" in str(result.report.refusals)) == (most < 200)


def test_strides_that_no_probe_meets_are_refused_at_once():
    b = Builder()
    y = b.conv(b.input(1, 4, 9, 9), 4, 4, (3, 3), strides=[1 << 40] * 2)
    model = b.model(b.op("Mul", y, b.constant(0.7)))
    result = onnxfuse.optimize(model)
    assert list(result.model.graph.node) == list(model.graph.node)
    assert "its window reaches too far" in str(result.report.refusals)
