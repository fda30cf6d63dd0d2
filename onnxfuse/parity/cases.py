"""What two models are compared on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime import (
    Feeds,
    Input,
    Kind,
    Loaded,
    RunError,
    Session,
    make_feeds,
    read_inputs,
    size_choices,
)
from onnxfuse.runtime.sizes import check_sizes

SIZES = 3
"""Choices of the symbolic dimensions to compare at, if so many work."""

_REGISTERED = 2
"""What numpy calls types that others have added: bfloat16, float8 and int4."""

_SPECIAL: tuple[Kind, ...] = ("zeros", "constant", "large", "tiny")


@dataclass(frozen=True)
class Case:
    """One set of inputs.

    Attributes:
        label: What it is, in words.
        feeds: The inputs, by name in the first model.
        generic: Whether they are noise, or a user's own: the models' meaning is compared on these.
    """

    label: str
    feeds: Feeds
    generic: bool


def find_cases(
    first: Loaded,
    session: Session,
    sizes: Mapping[str, int],
    recorded: Path | None,
    seed: int,
) -> list[Case]:
    """Inputs that the first model can be run on.

    Args:
        first: The model.
        session: A session of it.
        sizes: Extents of symbolic dimensions that are settled.
        recorded: A file or folder with inputs, instead of generated ones.
        seed: Of the noise.

    Raises:
        ModelError: The model runs on none, or not on those that were given.
    """
    check_sizes(first.inputs, sizes)
    if not first.outputs:
        raise ModelError(f"{first.name}: has no outputs to compare")
    for given in first.inputs:
        if given.elem_type and given.dtype.isbuiltin == _REGISTERED:
            raise ModelError(
                f"input {given.name!r} is {given.dtype.name}, which ONNX Runtime's Python "
                "interface does not take"
            )
    if recorded is not None:
        found = [Case(r.label, r.feeds, True) for r in read_inputs(recorded, first.inputs)]
        for case in found:
            session.run(case.feeds)
        return found
    working = _working(first.inputs, session, sizes, seed)
    if not working:
        raise _nothing_works(first, session, sizes, seed)
    cases = [Case(_label("random", feeds), feeds, True) for _, _, feeds in working]
    extents, kind, _ = working[0]
    if len(working) == 1:
        feeds = make_feeds(first.inputs, extents, kind, seed + 1)
        cases.append(Case(_label("random", feeds), feeds, True))
    for number, special in enumerate(_SPECIAL, start=2):
        feeds = make_feeds(first.inputs, extents, special, seed + number)
        if _outputs(session, feeds) is not None:
            cases.append(Case(_label(special, feeds), feeds, False))
    return cases


def _working(
    inputs: Sequence[Input], session: Session, sizes: Mapping[str, int], seed: int
) -> list[tuple[dict[str, int], Kind, Feeds]]:
    """Sizes, and the kind of noise, with which the model runs; `SIZES` of them at most.

    Where images are smaller than a window, outputs may be empty: such sizes do only if all are so.
    """
    found: list[tuple[dict[str, int], Kind, Feeds]] = []
    empty: list[tuple[dict[str, int], Kind, Feeds]] = []
    kinds: tuple[Kind, ...] = ("random", "tiny")  # small integers suit every index
    for number, extents in enumerate(size_choices(inputs, sizes)):
        for kind in kinds:
            feeds = make_feeds(inputs, extents, kind, seed + 100 * number)
            made = _outputs(session, feeds)
            if made is not None:
                hollow = any(isinstance(value, np.ndarray) and not value.size for value in made)
                (empty if hollow else found).append((extents, kind, feeds))
                break
        if len(found) == SIZES:
            break
    return found or empty[:SIZES]


def _outputs(session: Session, feeds: Feeds) -> list[Any] | None:
    """The outputs, or None where the model does not run."""
    try:
        return session.run(feeds)
    except RunError:
        return None


def _nothing_works(
    first: Loaded, session: Session, sizes: Mapping[str, int], seed: int
) -> ModelError:
    """What is wrong with the first choice, and what helps."""
    extents = next(size_choices(first.inputs, sizes))
    try:
        session.run(make_feeds(first.inputs, extents, "random", seed))
    except RunError as error:
        sizes_help = "sizes (--size NAME=EXTENT) or " if extents else ""
        return ModelError(f"{error}: give {sizes_help}inputs (--inputs)")
    return ModelError(f"{first.name}: gives other results at every run")


def _label(kind: str, feeds: Feeds) -> str:
    shapes = ["x".join(map(str, value.shape)) or "scalar" for value in feeds.values()]
    shown = " ".join(shapes[:3]) + (f" and {len(shapes) - 3} more" if len(shapes) > 3 else "")
    return f"{kind} {shown}".strip()
