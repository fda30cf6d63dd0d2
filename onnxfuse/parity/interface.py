"""Which input and output of one model is which of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxfuse.errors import ModelError
from onnxfuse.runtime import Input, Loaded


@dataclass(frozen=True)
class Interface:
    """Two models that take and give the same.

    Attributes:
        inputs: Name in the second model, by name in the first.
        outputs: (name in the first, name in the second), in the first's order.
        sizes: Extents of the first's symbolic dimensions that the second has fixed.
    """

    inputs: Mapping[str, str]
    outputs: tuple[tuple[str, str], ...]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def renamed(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of the first by the names of the second; those that it lacks are left out."""
        return {self.inputs[name]: value for name, value in feeds.items() if name in self.inputs}


def match(first: Loaded, second: Loaded) -> Interface:
    """Pairs inputs and outputs by name, or by order where names differ.

    An input of the first that the second lacks is left out: a model may have lost what it did not
    use.

    Raises:
        ModelError: They take or give other things.
    """
    ours, theirs = [i.name for i in first.inputs], [i.name for i in second.inputs]
    if set(theirs) <= set(ours):
        inputs = {name: name for name in theirs}
    elif len(ours) == len(theirs):
        inputs = dict(zip(ours, theirs, strict=True))
    else:
        raise _differ("inputs", first, second, ours, theirs)
    by_name = {given.name: given for given in second.inputs}
    sizes: dict[str, int] = {}
    for given in first.inputs:
        if given.name in inputs:
            other = by_name[inputs[given.name]]
            _check_types(given, other)
            sizes |= _fixed(given, other)
    if len(first.outputs) != len(second.outputs):
        raise _differ("outputs", first, second, first.outputs, second.outputs)
    named = set(first.outputs) == set(second.outputs)
    outputs = first.outputs if named else second.outputs
    return Interface(inputs, tuple(zip(first.outputs, outputs, strict=True)), sizes)


def _check_types(first: Input, second: Input) -> None:
    if first.elem_type != second.elem_type:
        raise ModelError(
            f"input {first.name!r} is of type {_type(first)} in the first model and of type "
            f"{_type(second)} in the second: they cannot be given the same"
        )


def _fixed(first: Input, second: Input) -> dict[str, int]:
    """Extents of symbolic dimensions that the second model has fixed; raises where both have."""
    if first.shape is None or second.shape is None:
        return {}
    pairs = list(zip(first.shape, second.shape, strict=False))
    clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    if clash or len(first.shape) != len(second.shape):
        raise ModelError(
            f"input {first.name!r} is {_shape(first)} in the first model and {_shape(second)} in "
            "the second: they cannot be given the same"
        )
    return {a: b for a, b in pairs if isinstance(a, str) and isinstance(b, int)}


def _shape(given: Input) -> str:
    return "x".join(map(str, given.shape or ())) or "a scalar"


def _type(given: Input) -> str:
    if not given.elem_type:
        return "sequence"
    return "string" if given.dtype.kind == "O" else given.dtype.name


def _differ(what: str, first: Loaded, second: Loaded, ours: Any, theirs: Any) -> ModelError:
    return ModelError(
        f"the models have other {what}: {first.name} has {', '.join(ours) or 'none'}, "
        f"{second.name} has {', '.join(theirs) or 'none'}"
    )
