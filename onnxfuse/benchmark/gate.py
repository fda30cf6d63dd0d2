"""The last gate: is the optimized model faster here? A measurement of a few seconds.

Both models are run, in a process of their own, with limits on time and memory. Where the optimized
one is slower, what was done to it is left out, one step after the other, to find what is to blame.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.benchmark.processes import call
from onnxfuse.benchmark.result import Interval
from onnxfuse.errors import ModelError

if TYPE_CHECKING:
    from onnxfuse.pipeline import OptimizeResult

SLOWER = 0.98
"""Ratios below this say that a model is slower: what is nearer to 1 may be where its memory lay."""
LIMIT = 15.0
"""Seconds after which the process is given up."""
LARGEST = 256 << 20
"""Bytes of weights; larger models are not measured."""
_PATIENCE = 60.0  # seconds for what is to blame


@dataclass(frozen=True)
class Gate:
    """The original and the optimized model, measured in turn.

    Attributes:
        provider: The provider, as users name it.
        shapes: Shapes of the inputs, by name.
        before: Median seconds of a run of the original.
        after: Of the optimized model.
        ratio: The original's time over the optimized model's: above 1 it is faster.
        blamed: Where it is slower: the step that it is as fast or faster without, as `skip` names
            it; empty where none was found.
    """

    provider: str
    shapes: Mapping[str, tuple[int, ...]]
    before: float
    after: float
    ratio: Interval
    blamed: str = ""

    @property
    def is_slower(self) -> bool:
        """True where the optimized model takes longer, beyond doubt and by more than it matters."""
        return self.ratio.high < SLOWER


def measured(
    original: Path, result: OptimizeResult, without: Callable[[str], OptimizeResult]
) -> Gate | str | None:
    """Measures an optimized model against the original on the CPU.

    Args:
        original: The file of the model as it was.
        result: The optimized one.
        without: Optimizes again, with one step more to skip.

    Returns:
        The measurement; why there is none; or None where nothing was folded.
    """
    steps = sorted({fold.step for fold in result.report.folds})
    if not steps:
        return None
    if result.report.before.parameter_bytes > LARGEST:
        return f"it has more than {LARGEST >> 20} MB of weights"
    found = _compared(original, result)
    if isinstance(found, str) or not found.is_slower:
        return found
    start, best = time.perf_counter(), (SLOWER, "")
    for step in steps:
        if time.perf_counter() - start < _PATIENCE:
            other = _compared(original, without(step))
            if not isinstance(other, str) and not other.is_slower:
                best = max(best, (other.ratio.value, step))
    return replace(found, blamed=best[1])


def _compared(original: Path, result: OptimizeResult) -> Gate | str:
    try:
        printed = _printed(original, result)
    except (ModelError, OSError) as error:
        return f"there is no place for a copy: {error}"
    if isinstance(printed, str):
        return printed
    found = json.loads(printed.splitlines()[-1])
    if isinstance(found, str):
        return found
    shapes = {name: tuple(shape) for name, shape in found.pop("shapes").items()}
    return Gate(shapes=shapes, ratio=Interval(**found.pop("ratio")), **found)


def _printed(original: Path, result: OptimizeResult) -> bytes | str:
    """What the process prints, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="onnxfuse-") as folder:
        optimized = Path(folder) / "model.onnx"
        result.save(optimized)
        given = (Path(os.path.abspath(original)), optimized, LIMIT)
        return call(f"{__package__}.gate_probe", given, LIMIT)
