"""Which way of making a region is the fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx

from onnxfuse.benchmark.measuring import Opened
from onnxfuse.benchmark.result import Interval
from onnxfuse.benchmark.rounds import measure
from onnxfuse.benchmark.settings import Settings
from onnxfuse.benchmark.statistics import paired_ratio
from onnxfuse.errors import ModelError
from onnxfuse.graph import Array
from onnxfuse.runtime import RunError, load_model

BUDGET = 0.4
"""Seconds of measuring a region, where rounds are short."""
FASTER = 1.02
"""Ratios whose interval lies above this say that a way is faster."""
CLOSE = {2: 3e-2, 4: 1e-3, 8: 1e-9}
"""How far two ways may be from each other, relative to the largest number, by bytes of a number."""
_WARM_UP = 2


def ratios(
    models: Sequence[onnx.ModelProto], feeds: Mapping[str, Array], settings: Settings
) -> list[Interval]:
    """Times the ways to make a region, in turn.

    Args:
        models: The ways, as models of their own.
        feeds: What they are given.
        settings: How they are loaded.

    Returns:
        The first one's time over each one's; 0 for those that do not run, or give something else.
    """
    out = Interval(0.0, 0.0, 0.0)
    found = [Interval(1.0, 1.0, 1.0)]
    for model in models[1:]:
        try:
            found.append(_ratio((models[0], model), feeds, settings) or out)
        except (ModelError, RunError):
            found.append(out)
    return found


def best(found: Sequence[Interval]) -> int:
    """The way that is faster than the first beyond doubt, or the first."""
    index = max(range(len(found)), key=lambda i: found[i].value)
    return index if found[index].low > FASTER else 0


def _ratio(
    pair: tuple[onnx.ModelProto, onnx.ModelProto], feeds: Mapping[str, Array], settings: Settings
) -> Interval | None:
    with ExitStack() as stack:
        loaded = [stack.enter_context(load_model(model, "a region")) for model in pair]
        opened = Opened(loaded, settings)
        given = [
            {one.name: feeds[one.name] for one in model.inputs if one.name in feeds}
            for model in loaded
        ]
        first, other = (
            session.run(own) for session, own in zip(opened.sessions, given, strict=True)
        )
        if not all(map(_is_close, first, other)):
            return None
        found = paired_ratio(*measure(opened.runners(given), warm_up=_WARM_UP, budget=BUDGET))
        if found.low > FASTER:
            opened.renew()
            again = paired_ratio(*measure(opened.runners(given), warm_up=_WARM_UP, budget=BUDGET))
            found = min(found, again, key=lambda ratio: ratio.value)
        return found


def _is_close(one: Any, other: Any) -> bool:
    """True for arrays that are nearly the same."""
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return False
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return False
    x, y = (value[finite].astype(np.float64) for value in (one, other))
    largest = float(np.max(np.abs(x), initial=0.0))
    return bool(np.all(np.abs(x - y) <= CLOSE[one.dtype.itemsize] * largest))
