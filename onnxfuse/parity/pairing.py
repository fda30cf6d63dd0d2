"""Which tensor of one model is which of another: by name, or else by value."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.parity.evaluator import Evaluator, Read, Value

_PROJECTIONS = 6
_NEAR = 3e-2
"""Distance of two sketches below which tensors may be the same; rounding and most errors are far
below, unrelated tensors at about 1."""

Sketch = NDArray[np.float64]


def pair_by_name(first: Evaluator, second: Evaluator) -> dict[str, str]:
    """Tensors that both models make under one name: name in the second to name in the first."""
    ours = {name for node in first.graph.node for name in node.output if name}
    return {
        name: name for node in second.graph.node for name in node.output if name and name in ours
    }


def pair_by_value(
    first: Evaluator, second: Evaluator, feeds: Mapping[str, Any], renamed: Mapping[str, Any]
) -> dict[str, str]:
    """Tensors that are nearly equal on these inputs: name in the second to name in the first.

    Random projections tell of a tensor what it is, without keeping it. Each tensor has one
    counterpart at most, the nearest first.

    Raises:
        Unevaluated: One of the two cannot be evaluated.
    """
    ours, theirs = _sketches(first, feeds), _sketches(second, renamed)
    candidates: list[tuple[float, str, str]] = []
    for name, (shape, sketch) in theirs.items():
        alike = [(other, known) for other, (kind, known) in ours.items() if kind == shape]
        limit = _NEAR * float(np.linalg.norm(sketch))
        candidates += [
            (distance, name, other)
            for other, known in alike
            if (distance := float(np.linalg.norm(known - sketch))) <= limit
        ]
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for _, name, other in sorted(candidates, key=lambda candidate: candidate[0]):
        if name not in pairs and other not in taken:
            pairs[name] = other
            taken.add(other)
    return pairs


def _sketches(
    model: Evaluator, feeds: Mapping[str, Any]
) -> dict[str, tuple[tuple[int, ...], Sketch]]:
    found: dict[str, tuple[tuple[int, ...], Sketch]] = {}

    def watch(node: onnx.NodeProto, read: Read, name: str, value: Value) -> Value:
        made = value[0]
        computed = isinstance(made, np.ndarray) and made.dtype.kind == "f" and made.size > 1
        if computed and node.op_type != "Constant" and np.isfinite(made).all() and made.any():
            found[name] = made.shape, _projections(made.shape) @ made.ravel()
        return value

    model.run(feeds, watch=watch)
    return found


@lru_cache(maxsize=8)
def _projections(shape: tuple[int, ...]) -> Sketch:
    rng = np.random.default_rng(zlib.crc32(repr(shape).encode()))
    return rng.standard_normal((_PROJECTIONS, int(np.prod(shape))))
