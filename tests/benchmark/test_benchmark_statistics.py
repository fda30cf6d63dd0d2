"""Intervals, from the definition of what they cover."""

import math

import numpy as np
import pytest

from onnxfuse.benchmark.statistics import FEWEST, median, median_of_blocks, paired_ratio


def missed(count, outside):
    """P(the median lies outside (x_(outside+1), x_(count-outside))), added up from the binomial."""
    return 2 * sum(math.comb(count, k) for k in range(outside + 1)) / 2**count


@pytest.mark.parametrize("count", [6, 7, 8, 9, 10, 20, 21, 50, 100, 200, 201, 1000, 3000])
def test_the_interval_is_the_narrowest_that_covers_95_percent(count):
    interval = median(list(range(count)))
    outside = int(interval.low)
    assert interval.high == count - 1 - outside
    assert interval.value == (count - 1) / 2
    if count < 1000:
        assert missed(count, outside) <= 0.05 < missed(count, outside + 1)
    else:  # the normal approximation
        assert abs(outside - (count / 2 - 1.96 * math.sqrt(count) / 2)) < 2


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_the_interval_of_a_few_numbers_is_their_range(count):
    values = [3.0, 1.0, 5.0, 2.0, 4.0][:count]
    interval = median(values)
    assert (interval.low, interval.high) == (min(values), max(values))
    assert interval.value == np.median(values)


def test_the_order_of_the_numbers_does_not_matter():
    values = np.random.default_rng(0).random(31)
    assert median(list(values)) == median(sorted(values, reverse=True))


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda rng, n: rng.standard_normal(n), 0.0),
        (lambda rng, n: rng.exponential(size=n), math.log(2)),
        (lambda rng, n: rng.standard_cauchy(n), 0.0),
    ],
    ids=["normal", "exponential", "Cauchy"],
)
@pytest.mark.parametrize("count", [10, 33, 200])
def test_coverage(draw, true, count):
    rng, times = np.random.default_rng(count), 2000
    inside = 0
    for _ in range(times):
        interval = median(list(draw(rng, count)))
        inside += interval.low <= true <= interval.high
    assert inside / times > 0.95 - 3 * math.sqrt(0.05 * 0.95 / times)


def test_blocks_cover_where_rounds_depend_on_each_other():
    """A level of each block's own: what follows each other is not independent."""
    rng, times, plain, blocks_of = np.random.default_rng(1), 1000, 0, 0
    for _ in range(times):
        blocks = rng.standard_normal((10, 1)) + 0.1 * rng.standard_normal((10, 20))
        single, both = median(list(blocks.ravel())), median_of_blocks(blocks.tolist())
        plain += single.low <= 0 <= single.high
        blocks_of += both.low <= 0 <= both.high
    assert blocks_of / times > 0.95
    assert plain / times < 0.75


def test_the_value_is_the_median_of_all_and_lies_inside():
    blocks = [[1.0, 1.0, 9.0, 9.0, 9.0]] * 5 + [[1.0, 1.0, 1.0]] * 5
    interval = median_of_blocks(blocks)
    assert interval.value == np.median(np.concatenate([np.array(b) for b in blocks]))
    assert interval.low <= interval.value <= interval.high


def test_paired_ratios_lose_what_slows_both():
    slow = np.random.default_rng(2).uniform(1, 10, (10, 4))
    interval = paired_ratio((3 * slow).tolist(), (2 * slow).tolist())
    np.testing.assert_allclose([interval.value, interval.low, interval.high], 1.5)


def test_a_ratio_needs_the_same_rounds():
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([[1.0, 2.0]], [[1.0]])
