"""Values for a model's inputs: noise, constants, large and small numbers; seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime.model import Input

Feeds: TypeAlias = dict[str, Any]
Kind = Literal["random", "zeros", "constant", "large", "tiny"]
KINDS: tuple[Kind, ...] = get_args(Kind)

UNKNOWN_RANK = (1, 8)
_INTEGERS = {"random": 100, "tiny": 2}
"""Integers below these are drawn: they suit most embeddings, and then every index."""
_SHAPE_LENGTH = 8
"""A vector of a fixed length up to this may be a shape, or repeats: integers from 1 to 3."""

_WORDS = ("a", "onnx", "The quick brown fox", "", "42", "Grüße")


def make_feeds(
    inputs: Sequence[Input], sizes: Mapping[str, int], kind: Kind = "random", seed: int = 0
) -> Feeds:
    """Values for all inputs of a model.

    Args:
        inputs: The inputs.
        sizes: Extents of their symbolic dimensions.
        kind: "random": normal numbers; integers from 0 to 99, bytes from 0 to 255. "zeros".
            "constant": one number everywhere. "large", "tiny": normal numbers times 10^4 and 10^-4,
            in float16 10^2 and 10^-2; integers 0 to 99, and 0 or 1.
        seed: Of the noise.

    Raises:
        ModelError: An input is no tensor, or too large.
    """
    rng = np.random.default_rng(seed)
    return {given.name: _value(given, sizes, kind, rng) for given in inputs}


def _value(
    given: Input, sizes: Mapping[str, int], kind: Kind, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    if not given.elem_type:
        raise ModelError(
            f"input {given.name!r} is no tensor: give it in a folder of ONNX test data (--inputs)"
        )
    shape = UNKNOWN_RANK if given.shape is None else given.shape
    extents = [extent if isinstance(extent, int) else sizes[extent] for extent in shape]
    try:
        fixed = all(isinstance(extent, int) for extent in shape)
        return np.asarray(_fill(given.dtype, extents, kind, rng, fixed), given.dtype)
    except (MemoryError, ValueError) as error:
        shown = "x".join(map(str, extents))
        raise ModelError(f"input {given.name!r} of {shown} is too large") from error


def _fill(
    dtype: np.dtype[Any],
    shape: Sequence[int],
    kind: Kind,
    rng: np.random.Generator,
    fixed: bool,
) -> np.ndarray[Any, Any]:
    if dtype.kind == "O":
        return np.array(_WORDS, object)[rng.integers(0, len(_WORDS), shape)]
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if dtype.kind == "b":
        return np.ones(shape, bool) if kind == "constant" else rng.integers(0, 2, shape) == 1
    if dtype.kind in "iu":
        if kind == "constant":
            return np.ones(shape, dtype)
        if len(shape) == 1 and fixed and shape[0] <= _SHAPE_LENGTH:
            return rng.integers(1, 4, shape).astype(dtype)
        top = 256 if dtype == np.uint8 and kind != "tiny" else _INTEGERS.get(kind, 100)
        return rng.integers(0, top, shape).astype(dtype)
    if kind == "constant":
        return np.full(shape, 0.7, dtype)
    scale = {"large": 1e4, "tiny": 1e-4}.get(kind, 1.0)
    if dtype.itemsize < 4:
        scale = scale**0.5
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return (rng.standard_normal(shape) * scale).astype(dtype)
