"""Which tensor of one model is which of another: by value and by name."""

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

_NAMED = 4

Sketch = NDArray[np.float64]


def pair(
    first: Evaluator, second: Evaluator, feeds: Mapping[str, Any], renamed: Mapping[str, Any]
) -> dict[str, str]:
    """Tensors that should be equal: name in the second model to name in the first.

    Floating tensors are paired by what they nearly equal on these inputs, the nearest first, each
    with one other at most; a name in common counts for as much as being `_NAMED` times nearer, so
    that it decides where only errors tell. (Some tools give the folded Conv the name of the Conv
    before, and then it is not the tensor of that name.) Other tensors, and floating ones that equal
    none, are paired by name.

    Raises:
        Unevaluated: One of the two cannot be evaluated.
    """
    ours, theirs = _sketches(first, feeds), _sketches(second, renamed)
    candidates: list[tuple[float, str, str]] = []
    for name, (shape, sketch) in theirs.items():
        limit = _NEAR * float(np.linalg.norm(sketch))
        for other, (kind, known) in ours.items():
            if kind != shape:
                continue
            distance = float(np.linalg.norm(known - sketch))
            if distance <= limit:
                candidates.append((distance / (_NAMED if other == name else 1), name, other))
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for _, name, other in sorted(candidates, key=lambda one: (one[0], one[1] != one[2])):
        if name not in pairs and other not in taken:
            pairs[name] = other
            taken.add(other)
    made = {name for node in first.graph.node for name in node.output if name}
    for node in second.graph.node:
        for name in node.output:
            if name in made and name not in pairs and name not in taken:
                pairs[name] = name
    return pairs


def _sketches(
    model: Evaluator, feeds: Mapping[str, Any]
) -> dict[str, tuple[tuple[int, ...], Sketch]]:
    """Random projections of tensors: they tell of each what it is, without keeping it."""
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
