"""At which sizes a stretch is probed.

A static graph has one. Where sizes are symbolic, a stretch that reads no shapes but its own takes
any; otherwise the whole model is given sizes, and inference tells what follows for the stretch. An
exporter may have frozen a size into constants all the same: then the stretch runs at no other, and
the constants tell which one it is.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from onnxfuse.graph import Graph, TensorType
from onnxfuse.hollow import hollow
from onnxfuse.probe.run import DoesNotRun, Run, Shape, shape_after
from onnxfuse.probe.stretch import Stretch
from onnxfuse.shapes import infer_types

_BATCHES = (2, 3, 2, 3, 2, 3)
_EXTENTS = (24, 29, 27, 30, 32, 48)
_MODEL_EXTENTS = (64, 96, 75, 90, 224, 331)
_MOST_RUNS = 4
_MOST_GUESSES = 64


@dataclass(frozen=True)
class Setting:
    """A model at one choice of sizes.

    Attributes:
        model: The model, with numbers for all dimensions of its inputs.
        sizes: What each symbolic dimension became.
    """

    model: onnx.ModelProto
    sizes: Mapping[str, int]

    @cached_property
    def _types(self) -> Mapping[str, TensorType]:
        return infer_types(self.model)

    def shape(self, name: str) -> Shape | None:
        """Shape of a tensor, or None where it does not follow."""
        return static_shape(self._types.get(name, TensorType()))


def static_shape(kind: TensorType) -> Shape | None:
    """A shape of positive numbers, or None."""
    sizes = tuple(d for d in kind.shape or () if isinstance(d, int) and d > 0)
    return sizes if kind.shape is not None and len(sizes) == len(kind.shape) else None


def model_settings(model: onnx.ModelProto) -> list[Setting]:
    """The model at several sizes of the symbolic dimensions of its inputs."""
    found = []
    for batch, extent in zip(_BATCHES, _MODEL_EXTENTS, strict=True):
        copy = hollow(model)
        del copy.graph.value_info[:]
        sizes: dict[str, int] = {}
        for value in copy.graph.input:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if not dim.HasField("dim_value"):
                    name = dim.dim_param or (f"{value.name}.{axis}" if axis else "batch")
                    apart = 32 * sum(size >= extent for size in sizes.values())
                    dim.dim_value = sizes.setdefault(name, extent + apart if axis else batch)
        found.append(Setting(copy, sizes))
        if not sizes:
            break
    return found


def runs_of(
    graph: Graph, stretch: Stretch, settings: Callable[[], Sequence[Setting]]
) -> Iterator[Run]:
    """The stretch at sizes at which it runs, made one by one.

    Args:
        graph: The graph around it.
        stretch: The stretch.
        settings: Gives the model at several sizes; called only where that is needed.
    """
    kind = graph.type(stretch.source)
    others = {name: static_shape(graph.type(name)) for name in stretch.shapes_of}
    known = {name: shape for name, shape in others.items() if shape is not None}
    static = static_shape(kind)
    if static is not None and len(known) == len(others):
        yield from _that_run(graph, stretch, [(static, known)])
        return
    free = has_channels(kind) and not others
    count = 0
    if free:
        for run in _that_run(graph, stretch, ((shape, {}) for shape in _free_shapes(kind))):
            count += 1
            yield run
    if count > 1:
        return
    names = (stretch.source, *others)
    for run in _that_run(graph, stretch, _at_settings(names, settings())):
        count += 1
        yield run
    if free and not count:
        frozen = ((shape, known) for shape in _frozen_shapes(graph, stretch, kind))
        yield from itertools.islice(_that_run(graph, stretch, frozen), 1)


def has_channels(kind: TensorType) -> bool:
    """True for an image with a known number of channels."""
    return kind.shape is not None and len(kind.shape) > 2 and isinstance(kind.shape[1], int)


def _that_run(
    graph: Graph, stretch: Stretch, shapes: Iterable[tuple[Shape, Mapping[str, Shape]]]
) -> Iterator[Run]:
    count = 0
    for shape, others in shapes:
        if count == _MOST_RUNS:
            return
        with contextlib.suppress(DoesNotRun):
            yield Run(graph, stretch, shape, others)
            count += 1


def _at_settings(
    names: Sequence[str], settings: Iterable[Setting]
) -> Iterator[tuple[Shape, Mapping[str, Shape]]]:
    """The shapes of a source and of other tensors, where all follow."""
    for setting in settings:
        shapes = {name: shape for name in names if (shape := setting.shape(name)) is not None}
        if len(shapes) == len(set(names)):
            yield shapes[names[0]], shapes


def _free_shapes(kind: TensorType) -> Iterator[Shape]:
    """Shapes for a tensor of that type, symbols given sizes with different remainders."""
    for number, batch in enumerate(_BATCHES):
        sizes: dict[object, int] = {}
        shape = []
        for axis, dim in enumerate(kind.shape or ()):
            extent = _EXTENTS[(number + axis) % len(_EXTENTS)] if axis else batch
            shape.append(dim if isinstance(dim, int) else sizes.setdefault(dim or axis, extent))
        yield tuple(shape)


def _frozen_shapes(graph: Graph, stretch: Stretch, kind: TensorType) -> Iterator[Shape]:
    """Shapes of the source that constants in the stretch speak of.

    A constant of as many dimensions as the source, or a vector of as many integers, tells sizes of
    tensors within the stretch; they differ from those of the source by what nodes add to it.
    """
    some = next(_free_shapes(kind))
    known = kind.shape or ()
    grown = _growth(graph, stretch, some)
    told = list(_told(graph, stretch, len(some)))
    choices = [
        [dim]
        if isinstance(dim, int)
        else sorted({s[axis] - g[axis] for s in told for g in grown if s[axis] > max(g[axis], 1)})
        for axis, dim in enumerate(known)
    ]
    yield from itertools.islice(itertools.product(*choices), _MOST_GUESSES)


def _told(graph: Graph, stretch: Stretch, rank: int) -> Iterator[Shape]:
    """The shapes that constants have or hold."""
    for name in stretch.constants:
        shape = graph.constant_shape(name)
        if shape is not None and len(shape) == rank:
            yield shape
        elif shape == (rank,) and graph.type(name).elem_type == onnx.TensorProto.INT64:
            value = graph.constant(name)
            if value is not None:
                yield tuple(value.tolist())


def _growth(graph: Graph, stretch: Stretch, shape: Shape) -> set[tuple[int, ...]]:
    """By how much tensors of the stretch are larger than its source, as far as it runs."""
    found = {(0,) * len(shape)}
    outputs = {node.output[0] for node in stretch.affine}
    for count, node in enumerate(stretch.nodes, start=1):
        if node.output[0] in outputs:
            try:
                made = shape_after(graph, stretch, shape, count)
            except DoesNotRun:
                break
            if len(made) == len(shape):
                found.add(tuple(m - n for m, n in zip(made, shape, strict=True)))
    return found
