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
    """The modelled gain from which on a rewrite was not slower."""
    return threshold([row for row in rows() if row.step == step])


def threshold(found: Sequence[Row]) -> float:
    """The gain half way between the last row that was slower and the next, of rows by their gain.

    What lies within an interval, or within 2%, is not slower.
    """
    by_gain = [(row.gain, row) for row in found if row.gain is not None]
    slower = [gain for gain, row in by_gain if row.high < 1 or row.ratio < _SLOWER]
    last = max(slower, default=0.0)
    above = min((gain for gain, _ in by_gain if gain > last), default=float("inf"))
    return (last + above) / 2
