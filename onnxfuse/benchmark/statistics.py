"""Medians with intervals that assume nothing of how the numbers are distributed."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from onnxfuse.benchmark.result import Interval

FEWEST = 6
"""Below this many numbers even their whole range covers the median with less than 95%."""


def median(values: Sequence[float]) -> Interval:
    """The median of a sample, with an interval that covers the true median with at least 95%.

    Whatever the distribution, the number of values below its median is binomial with p = 1/2. So
    (x_k, x_(n+1-k)), the values in order, misses the median with probability 2 P(Bin(n, 1/2) < k);
    the largest k is taken for which that is 5% at most. With fewer than `FEWEST` values there is
    none, and the interval is their range.

    Args:
        values: The sample, independent of each other, not empty.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside = _outside(count)
    return Interval(statistics.median(ordered), ordered[outside], ordered[count - 1 - outside])


def median_of_blocks(blocks: Sequence[Sequence[float]]) -> Interval:
    """The median of all values, with the interval of the blocks' medians.

    Times that follow each other are not independent: a machine is slower for a while, or a model's
    memory lies badly until its session is created anew. Blocks of them nearly are.

    Args:
        blocks: Values block by block, none empty.
    """
    middle = statistics.median(itertools.chain(*blocks))
    ends = median([statistics.median(block) for block in blocks])
    return Interval(middle, min(ends.low, middle), max(ends.high, middle))


def paired_ratio(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Interval:
    """The median over the rounds of first / other, with its interval.

    What slows a machine down for a while slows both models of a round, and drops out.

    Args:
        first: A time from each round, block by block.
        other: The other model's time from the same rounds.
    """
    pairs = zip(first, other, strict=True)
    return median_of_blocks([[a / b for a, b in zip(*pair, strict=True)] for pair in pairs])


def _outside(count: int) -> int:
    """How many values lie outside the interval on each side: P(Bin(count, 1/2) <= that) <= 1/40."""
    below, outside = 1, 0
    while 40 * below <= 2**count:
        outside += 1
        below += math.comb(count, outside)
    return max(outside - 1, 0)
