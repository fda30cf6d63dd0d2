"""What rewrites do to the speed of regions that they are for: measured, and the defaults from it.

`measured.json` is what `scripts/measure_defaults.py` writes. Its rows are regions, one rewrite in
each, run as they were and rewritten, in turn. The rewrites that `optimize` makes are those that
paid. Where a model of the cost says how much one gains, it is made from that gain on from which it
paid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

TABLE = "measured.json"
_SLOWER = 0.98


@dataclass(frozen=True)
class Row:
    """One region.

    Attributes:
        step: The rewrite, or what is tried, by name.
        region: What the region is, in words.
        gain: What the cost model says: the time saved over the time spent; None where it has none.
        ratio: The time before over the time after; above 1 the rewrite is faster.
        low: The lower end of its 95% interval.
        high: The upper end.
    """

    step: str
    region: str
    gain: float | None
    ratio: float
    low: float
    high: float


@cache
def rows() -> tuple[Row, ...]:
    """The table."""
    text = resources.files("onnxfuse.rewrites").joinpath(TABLE).read_text(encoding="utf-8")
    return tuple(Row(**row) for row in json.loads(text)["rows"])


def paying_from(step: str) -> float:
    """The modelled gain from which on a rewrite was never slower."""
    return threshold([row for row in rows() if row.step == step])


def threshold(found: Sequence[Row]) -> float:
    """The gain of the least of some rows such that it and all that gain more are not slower.

    What lies within an interval, or within 2%, is as fast.
    """
    least = float("inf")
    for row in sorted((r for r in found if r.gain is not None), key=_gain, reverse=True):
        if row.high < 1 or row.ratio < _SLOWER:
            break
        least = _gain(row)
    return least


def _gain(row: Row) -> float:
    return row.gain or 0.0
