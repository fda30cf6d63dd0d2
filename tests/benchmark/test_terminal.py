"""What is said of a speedup."""

from __future__ import annotations

import pytest

from onnxfuse.benchmark.result import Interval
from onnxfuse.benchmark.terminal import speedup


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((1.2, 1.1, 1.3), []),
        ((1.01, 0.99, 1.03), ["no faster"]),
        ((1.0, 1.0, 1.0), ["no faster"]),
        ((0.99, 0.97, 1.01), ["no faster"]),
        ((0.9, 0.85, 0.95), ["slower"]),
    ],
)
def test_no_gain_is_said_in_words(ends, words):
    value, low, high = ends
    first, interval, *said = speedup(Interval(value, low, high)).split("\n")
    assert (first, interval) == (f"{value:.3f}", f"{low:.3f}-{high:.3f}")
    assert said == words
