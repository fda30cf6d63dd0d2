"""Samples from Python: anything that gives dicts, arrays, or either with a label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from onnxfuse.calibration.archives import only
from onnxfuse.calibration.arrays import as_labels, samples_in
from onnxfuse.calibration.samples import Labels, Samples, grouped, layout
from onnxfuse.errors import ModelError
from onnxfuse.exporter.pytorch import said
from onnxfuse.runtime import Feeds, Input


def from_iterable(name: str, given: Iterable[Any], inputs: Sequence[Input]) -> Samples:
    """Samples from items, one after the other.

    An item is a dict of arrays by input, an array for the only input, or a pair of either and a
    label, or labels. It may hold several samples along its leading axis. What has a length and can
    be indexed is asked for an item whenever it is needed; what anything else gives is held in
    memory.

    Args:
        name: What messages call it.
        given: The items.
        inputs: What the model has to be given.

    Raises:
        ModelError: It raises, gives nothing, or something else, or labels for some items only.
    """
    try:
        items: Any = given if _is_sequence(given) else list(given)
    except Exception as error:  # code of the user's, which may raise anything
        raise ModelError(f"{name} failed: {said(error)}") from error
    places: list[tuple[int, int]] = []
    labels: list[Labels] = []
    for number in range(len(items)):
        where, (arrays, label) = _item(name, items, number, inputs)
        count, _ = samples_in(where, arrays, inputs)
        places += [(number, index) for index in range(count)]
        if label is not None:
            labels.append(as_labels(label, where))
            if len(label) != count:
                raise ModelError(f"{where}: {len(label)} labels for {count} samples")
    classes = np.concatenate(labels) if labels else None
    if not places:
        raise ModelError(f"{name}: there are no samples in it")
    if classes is not None and len(classes) != len(places):
        raise ModelError(f"{name}: {len(classes)} labels for {len(places)} samples")

    def sample(index: int) -> Feeds:
        number, part = places[index]
        where, (arrays, _) = _item(name, items, number, inputs)
        count, at = samples_in(where, arrays, inputs)
        if part >= count:
            raise ModelError(f"{where} has fewer samples than when it was asked before")
        return at(part)

    return grouped(name, len(places), sample, classes, layout(inputs).group)


def from_factory(name: str, made: Any, inputs: Sequence[Input]) -> Samples:
    """Samples from what a name stands for: items, or a function that gives them.

    Raises:
        ModelError: As above, or it is neither.
    """
    if callable(made) and not isinstance(made, Iterable):
        factory = cast(Callable[[], Any], made)
        try:
            made = factory()
        except (Exception, SystemExit) as error:  # code of the user's, as above
            raise ModelError(f"{name} failed: {said(error)}") from error
    if isinstance(made, (str, bytes)) or not (isinstance(made, Iterable) or _is_sequence(made)):
        raise ModelError(f"{name} gives a {type(made).__name__}, not samples one after the other")
    return from_iterable(name, cast(Iterable[Any], made), inputs)


def _is_sequence(given: Any) -> bool:
    return hasattr(given, "__len__") and hasattr(given, "__getitem__") and not _is_mapping(given)


def _is_mapping(given: Any) -> bool:
    return isinstance(given, Mapping)


def _item(
    name: str, items: Any, number: int, inputs: Sequence[Input]
) -> tuple[str, tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any] | None]]:
    """What messages call an item, its arrays by input, and its labels in a row."""
    where = f"{name}: item {number}"
    try:
        item = items[number]
    except Exception as error:  # code of the user's, as above
        raise ModelError(f"{where} failed: {said(error)}") from error
    label = None
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise ModelError(f"{where} has {len(item)} parts: arrays and a label are two")
        item, label = item[0], np.atleast_1d(_array(item[1], where))
    if not _is_mapping(item):
        item = {only(inputs, where).name: item}
    arrays = {str(key): _array(value, where) for key, value in item.items()}
    return where, (arrays, label)


def _array(value: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # of another package's tensors
        raise ModelError(f"{where} does not become an array: {said(error)}") from error
