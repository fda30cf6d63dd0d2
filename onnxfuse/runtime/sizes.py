"""Extents for symbolic dimensions: what the user says, and what to try where nobody says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from onnxfuse.errors import ModelError
from onnxfuse.runtime.model import Input

_BATCHES = (1, 2, 3)
_SQUARE = ((64, 64, 64), (96, 64, 32), (75, 83, 37), (224, 224, 224), (32, 48, 16), (8, 8, 8))
"""Extents of the first, second and third symbolic dimension behind the batch: multiples of 32, as
networks that downsample want, odd ones, what networks with a fixed head take, and small ones."""


def parse_sizes(texts: Sequence[str]) -> dict[str, int]:
    """Extents by name of the dimension, from texts such as batch=4 or height=480,width=640.

    Raises:
        ModelError: A text is written otherwise.
    """
    sizes: dict[str, int] = {}
    for part in (part for text in texts for part in text.split(",")):
        match = re.fullmatch(r"\s*(.+?)\s*=\s*0*(\d{1,18})\s*", part)
        if match is None:
            raise ModelError(f"size {part!r} is not written as NAME=EXTENT, such as height=224")
        sizes[match[1]] = int(match[2])
    return sizes


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by name of the input, from texts such as image:1x3x224x224; "" where none is named.

    Raises:
        ModelError: A text is written otherwise.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = re.fullmatch(r"(?:(.+):)?(\d{1,18}(?:x\d{1,18})*)", text.strip())
        if match is None:
            raise ModelError(
                f"input shape {text!r} is not written as NAME:EXTENTxEXTENT.., such as 1x3x224x224"
            )
        shapes[match[1] or ""] = tuple(map(int, match[2].split("x")))
    return shapes


def sizes_of_shapes(
    inputs: Sequence[Input], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Extents of the symbolic dimensions, of inputs with certain shapes.

    Args:
        inputs: The model's inputs.
        shapes: Shapes by name; that without a name is the first input's.

    Raises:
        ModelError: There is no such input, or it has other extents, or two of them contradict.
    """
    known = {given.name: given for given in inputs}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        given = known.get(name) if name or not inputs else inputs[0]
        if given is None:
            raise ModelError(f"no input is named {name!r}: there are {', '.join(known) or 'none'}")
        if given.shape is None:
            raise ModelError(f"input {given.name!r} has no rank: its sizes cannot be given")
        if len(given.shape) != len(shape):
            raise ModelError(f"input {given.name!r} has {len(given.shape)} axes, not {len(shape)}")
        for extent, size in zip(given.shape, shape, strict=True):
            if extent != size and not (
                isinstance(extent, str) and sizes.setdefault(extent, size) == size
            ):
                raise ModelError(f"input {given.name!r}: {extent} cannot be {size}")
    return sizes


def symbols(inputs: Sequence[Input]) -> dict[str, int]:
    """The axis at which each symbolic dimension first stands, by name, in order."""
    found: dict[str, int] = {}
    for given in inputs:
        for axis, extent in enumerate(given.shape or ()):
            if isinstance(extent, str):
                found.setdefault(extent, axis)
    return found


def check_sizes(inputs: Sequence[Input], sizes: Mapping[str, int]) -> None:
    """Raises ModelError where a size is for a dimension that no input has."""
    known = symbols(inputs)
    for name in sizes:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "all are fixed"
            raise ModelError(f"no input has a symbolic dimension {name!r}: {there}")


def size_choices(
    inputs: Sequence[Input], given: Mapping[str, int], first: Sequence[int] = ()
) -> Iterator[dict[str, int]]:
    """Extents for every symbolic dimension, one choice after the other.

    Args:
        inputs: The model's inputs.
        given: Extents that are settled.
        first: Extents behind the batch to begin with.

    Yields:
        Different choices, the batch 1, 2, 3 in turn; one choice where nothing is open.
    """
    axes = symbols(inputs)
    behind = [name for name, axis in axes.items() if axis > 0]
    tried: list[dict[str, int]] = []
    rounds = ([tuple(first)] if first else []) + list(_SQUARE)
    for number, extents in enumerate(rounds):
        batch = _BATCHES[number % len(_BATCHES)]
        choice = {
            name: batch if axis == 0 else extents[behind.index(name) % len(extents)]
            for name, axis in axes.items()
        } | {name: extent for name, extent in given.items() if name in axes}
        if choice not in tried:
            tried.append(choice)
            yield choice
