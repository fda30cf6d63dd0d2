"""The arrays that the first model is given, for the inputs of another one."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds, Input, Loaded


def match(feeds: Feeds, first: Loaded, other: Loaded) -> Feeds:
    """What to give the other model: the same arrays, by name, or in order where names differ.

    Args:
        feeds: What the first model is given.
        first: The first model.
        other: The other one; it may have fewer inputs, if their names are the same.

    Raises:
        ModelError: It has other inputs.
    """
    by_name = {given.name: feeds[given.name] for given in other.inputs if given.name in feeds}
    if len(by_name) == len(other.inputs):
        for given in other.inputs:
            if not _fits(by_name[given.name], given):
                raise ModelError(
                    f"{other.name}: input {_declared(given)} cannot take the "
                    f"{_shown(by_name[given.name])} that {first.name} is given"
                )
        return by_name
    arrays = [feeds[given.name] for given in first.inputs]
    if len(arrays) == len(other.inputs) and all(map(_fits, arrays, other.inputs)):
        return {given.name: array for given, array in zip(other.inputs, arrays, strict=True)}
    wanted = ", ".join(map(_declared, other.inputs)) or "none"
    has = ", ".join(f"{name!r} {_shown(value)}" for name, value in feeds.items()) or "none"
    raise ModelError(
        f"{other.name}: its inputs ({wanted}) do not match what {first.name} is given ({has})"
    )


def _fits(value: Any, given: Input) -> bool:
    if not isinstance(value, np.ndarray):
        return not given.elem_type
    if not given.elem_type or value.dtype != given.dtype:
        return False
    if given.shape is None:
        return True
    return value.ndim == len(given.shape) and all(
        isinstance(extent, str) or extent == actual
        for extent, actual in zip(given.shape, value.shape, strict=True)
    )


def _shown(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    return _typed(value.dtype, value.shape)


def _declared(given: Input) -> str:
    if not given.elem_type:
        return f"{given.name!r} (no tensor)"
    return f"{given.name!r} {_typed(given.dtype, given.shape or ())}"


def _typed(dtype: np.dtype[Any], shape: tuple[int | str, ...]) -> str:
    name = "string" if dtype.kind == "O" else dtype.name
    return f"{name} {'x'.join(map(str, shape))}".rstrip()
