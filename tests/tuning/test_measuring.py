"""Which of several ways is taken."""

import numpy as np
import pytest

from onnxfuse.benchmark.result import Interval
from onnxfuse.benchmark.settings import Settings
from onnxfuse.tuning import measuring
from onnxfuse.tuning.measuring import best, ratios
from tests.lift.building import Builder

CPU = Settings("CPUExecutionProvider", threads=1)


def towers(count, scale=1.0, size=48):
    b = Builder()
    y = b.input(1, 16, size, size)
    for _ in range(count):
        y = b.op("Conv", y, b.constant(scale * np.eye(16).reshape(16, 16, 1, 1)))
    return b.model(b.op("Relu", y, output="y"))


FEEDS = {"x": np.random.default_rng(0).standard_normal((1, 16, 48, 48)).astype(np.float32)}


def test_a_way_of_fewer_nodes_is_faster():
    found = ratios([towers(12), towers(1), towers(24)], FEEDS, CPU)
    assert found[0] == Interval(1.0, 1.0, 1.0)
    assert found[1].low > 2
    assert found[2].high < 0.9
    assert best(found) == 1
    assert best(ratios([towers(1), towers(12)], FEEDS, CPU)) == 0


def test_a_way_that_computes_something_else_is_not_taken():
    found = ratios([towers(12), towers(1, scale=1.01)], FEEDS, CPU)
    assert (found[1].value, best(found)) == (0.0, 0)


def test_a_way_that_does_not_run_is_not_taken():
    b = Builder()
    x = b.input(1, 16, 48, 48)
    odd = b.model(b.op("Reshape", x, b.constant([7, -1]), output="y"))
    found = ratios([towers(12), odd], FEEDS, CPU)
    assert (found[1].value, best(found)) == (0.0, 0)


def test_what_is_faster_once_alone_is_not_taken(monkeypatch):
    given = [Interval(1.5, 1.4, 1.6), Interval(1.0, 0.9, 1.1)]
    monkeypatch.setattr(measuring, "paired_ratio", lambda *_: given.pop(0))
    assert best(ratios([towers(1), towers(1)], FEEDS, CPU)) == 0
    assert given == []


@pytest.mark.parametrize(
    ("low", "values", "expected"),
    [(1.03, (1.0, 1.1), 1), (1.01, (1.0, 1.1), 0), (1.03, (1.0, 1.1, 1.2), 2), (0.9, (1.0,), 0)],
)
def test_faster_beyond_doubt(low, values, expected):
    found = [Interval(value, low if value > 1 else value, value) for value in values]
    assert best(found) == expected


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.inf], [1.0, np.inf], True),
        ([1.0, np.inf], [1.0, 2.0], False),
        ([1000.0, 0.0], [1000.0, 0.9], True),
        ([1000.0, 0.0], [1000.0, 1.1], False),
        ([[1.0]], [1.0], False),
    ],
)
def test_what_is_close(one, other, close):
    one, other = (np.array(value, np.float32) for value in (one, other))
    assert measuring._is_close(one, other) is close


def test_integers_are_equal_or_not():
    assert measuring._is_close(np.array([3]), np.array([3]))
    assert not measuring._is_close(np.array([3]), np.array([4]))
    assert not measuring._is_close(np.array([3]), np.array([3.0]))
