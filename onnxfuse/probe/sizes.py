"""At which sizes a stretch is probed.

A static graph has one. Where sizes are symbolic, a stretch that reads no shapes but its own takes
any; otherwise the whole model is given sizes, and inference tells what follows for the stretch.
Among the sizes is one beyond every bound and index that constants hold, where there are such.

An exporter may have frozen a size into constants although the model declares it symbolic: then the
constants tell which one it is, and the stretch has to fail at those around it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph, TensorType
from onnxfuse.hollow import hollow
from onnxfuse.probe.bounds import Reach, reach
from onnxfuse.probe.run import BeyondMeans, DoesNotRun, Run, Shape, shape_after
from onnxfuse.probe.stretch import Stretch
from onnxfuse.shapes import infer_types

_SMALL_EXTENT = 18
_BATCHES = (2, 3, 1, 2, 3, 1)
_EXTENTS = ((24, 29, 21), (31, 26, 24), (26, 28, 19), (29, 27, 22), (32, 48, 16), (48, 32, 24))
_SMALL_EXTENTS = ((9, 10, 11), (5, 3, 4), (2, 1, 3))
_LARGE_BATCH = 24
_MOST_IN_BATCH = 1 << 21
_MODEL_EXTENTS = (64, 96, 75, 90, 18, 9, 5, 224, 331)
_MODEL_BATCHES = (2, 3, 1, 2, 3, 1, 7, 3, 1)  # large where the extent is small, and vice versa
_MOST_RUNS = 4
_MOST_GUESSES = 64


Shapes = tuple[Shape, Mapping[str, Shape]]
"""The shape of a source, and those of other tensors."""


@dataclass(frozen=True)
class Setting:
    """A model at one choice of sizes.

    Attributes:
        model: The model, with numbers for all dimensions of its inputs.
        sizes: What each symbolic dimension became, those of batches left out.
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
    for number, (extent, batch) in enumerate(zip(_MODEL_EXTENTS, _MODEL_BATCHES, strict=True)):
        copy = hollow(model)
        del copy.graph.value_info[:]
        batches: dict[str, int] = {}
        extents: dict[str, int] = {}
        apart = -extent // 6 if number % 2 else extent // 2  # the first symbol is large, or small
        for value in copy.graph.input:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.HasField("dim_value"):
                    continue
                if axis == 0:
                    dim.dim_value = batches.setdefault(dim.dim_param, batch)
                else:
                    name = dim.dim_param or f"{value.name}.{axis}"
                    size = max(extent + apart * len(extents), 3)
                    dim.dim_value = extents.setdefault(name, size)
        if extents or batch not in _MODEL_BATCHES[:number]:
            found.append(Setting(copy, extents))
        if not batches and not extents:
            break
    return found


def runs_of(
    graph: Graph, stretch: Stretch, settings: Callable[[], Sequence[Setting]]
) -> Iterator[Run]:
    """The stretch at sizes at which it runs, made one by one; at some it may make nothing.

    Args:
        graph: The graph around it.
        stretch: The stretch.
        settings: Gives the model at several sizes; called only where that is needed.

    Raises:
        BeyondMeans: If a size that matters is too large, or there is no telling which ones do.
    """
    kind = graph.type(stretch.source)
    others = {name: static_shape(graph.type(name)) for name in stretch.shapes_of}
    known = {name: shape for name, shape in others.items() if shape is not None}
    static = static_shape(kind)
    if static is not None and len(known) == len(others):
        yield from _that_run(graph, stretch, [(static, known)])
        return
    reached = reach(graph, stretch)
    if isinstance(reached, Refusal):
        raise BeyondMeans(reached.reason)
    if not has_channels(kind) or others:
        yield from _at_settings(graph, stretch, settings(), reached)
        return
    made: list[Run] = []
    for run in _at_any_size(graph, stretch, settings, reached):
        if run.rest.size:
            made.append(run)
        yield run
    yield from _beyond_one(graph, stretch, made)


def _at_any_size(
    graph: Graph, stretch: Stretch, settings: Callable[[], Sequence[Setting]], reached: Reach
) -> Iterator[Run]:
    """A stretch that reads no shapes but its own."""
    kind = graph.type(stretch.source)
    count = 0
    for run in _free(graph, stretch, kind, reached):
        count += run.rest.size > 0
        yield run
    if count > 1:
        return
    for run in _at_settings(graph, stretch, settings(), reached):
        count += run.rest.size > 0
        yield run
    if not count:
        yield from _frozen(graph, stretch, kind)


def _beyond_one(graph: Graph, stretch: Stretch, made: Sequence[Run]) -> Iterator[Run]:
    """The stretch where an axis is longer, if it was 1 at all sizes at which the stretch ran.

    What broadcasts against a constant runs at 1 and at one other extent, where it may be no
    convolution: that of the constant, less what the stretch adds to the axis.
    """
    lengths = {n for name in stretch.constants for n in graph.constant_shape(name) or ()}
    extents = sorted({*range(2, _SMALL_EXTENT), *(n - k for n in lengths for k in range(9))})
    for axis, dim in enumerate(graph.type(stretch.source).shape or ()):
        if made and not isinstance(dim, int) and all(run.shape[axis] == 1 for run in made):
            shape = made[0].shape
            longer = ((*shape[:axis], n, *shape[axis + 1 :]) for n in extents if n > 1)
            yield from _that_run(graph, stretch, ((s, {}) for s in longer))


def has_channels(kind: TensorType) -> bool:
    """True for an image with a known number of channels."""
    return kind.shape is not None and len(kind.shape) > 1 and isinstance(kind.shape[1], int)


def _that_run(graph: Graph, stretch: Stretch, shapes: Iterable[Shapes]) -> Iterator[Run]:
    for shape, others in shapes:
        with contextlib.suppress(DoesNotRun):
            yield Run(graph, stretch, shape, others)


def _at_settings(
    graph: Graph, stretch: Stretch, settings: Sequence[Setting], reached: Reach
) -> Iterator[Run]:
    """The stretch where the model has some sizes, one of them beyond all bounds."""
    names = {stretch.source, *stretch.shapes_of}
    kind = graph.type(stretch.source).shape
    count, beyond = 0, False
    batches: set[int] = set()
    for setting in settings:
        shapes = {name: shape for name in names if (shape := setting.shape(name)) is not None}
        if len(shapes) < len(names):
            continue
        shape = shapes[stretch.source]
        varying = [
            n for a, n in enumerate(shape) if a > 1 and not (kind and isinstance(kind[a], int))
        ]
        is_beyond = all(n > reached.far for n in setting.sizes.values())
        is_beyond &= not setting.sizes or all(n > reached.bound for n in varying)
        is_small = max(setting.sizes.values(), default=0) <= 2 * _SMALL_EXTENT
        if count < _MOST_RUNS or is_small or (is_beyond and not beyond):
            for run in _that_run(graph, stretch, [(shape, shapes)]):
                if run.rest.size:
                    count, beyond = count + 1, beyond or is_beyond
                    batches.add(run.shape[0])
                yield run
    if count and not beyond:
        raise BeyondMeans(f"its constants reach to sizes of {reached.far}")
    if len(batches) == 1 and not (kind and isinstance(kind[0], int)):
        raise BeyondMeans(f"of several batches it runs with {batches.pop()} images alone")


def _free(graph: Graph, stretch: Stretch, kind: TensorType, reached: Reach) -> Iterator[Run]:
    """A stretch that takes any size: at some, at small ones, and at ones beyond all bounds."""
    near = _that_run(graph, stretch, ((shape, {}) for shape in _free_shapes(kind)))
    yield from itertools.islice(near, _MOST_RUNS)
    yield from _that_run(graph, stretch, ((s, {}) for s in _far_shapes(kind, reached.far)))


def _free_shapes(kind: TensorType) -> Iterator[Shape]:
    """Shapes for a tensor of that type, symbols given sizes with different remainders."""
    for batch, extents in zip(_BATCHES, _EXTENTS, strict=True):
        yield _with_sizes(kind, batch, extents)


def _far_shapes(kind: TensorType, far: int) -> Iterator[Shape]:
    """Shapes beyond a bound, along one axis of space or in the batch each; and small ones."""
    small = _SMALL_EXTENTS[0]
    if far >= min(map(min, _EXTENTS)):
        for axis in range(len(small)):
            yield _with_sizes(kind, 1, [far + 3 if i == axis else n for i, n in enumerate(small)])
    for extents in _SMALL_EXTENTS:
        yield _with_sizes(kind, 1, extents)
    image = max(math.prod(_with_sizes(kind, 1, small)), 1)
    batch = min(max(far, _LARGE_BATCH), max(_MOST_IN_BATCH // image, _LARGE_BATCH))
    yield _with_sizes(kind, batch + 1, small)


def _with_sizes(kind: TensorType, batch: int, extents: Sequence[int]) -> Shape:
    sizes: dict[object, int] = {}
    return tuple(
        dim
        if isinstance(dim, int)
        else sizes.setdefault(dim or axis, extents[axis - 2] if axis else batch)
        for axis, dim in enumerate(kind.shape or ())
    )


def _frozen(graph: Graph, stretch: Stretch, kind: TensorType) -> Iterator[Run]:
    """The stretch at the size that its constants speak of, and around it where it runs there."""
    guesses = _frozen_shapes(graph, stretch, kind)
    guessed = _that_run(graph, stretch, ((g, {}) for g in guesses))
    for run in itertools.islice((r for r in guessed if r.rest.size), 1):
        yield run
        axes = [axis for axis, dim in enumerate(kind.shape or ()) if not isinstance(dim, int)]
        moves = [([axis], step) for axis in axes for step in (-1, 1, 9)] + [(axes[1:], 9)]
        around = (
            tuple(n + step * (axis in moved) for axis, n in enumerate(run.shape))
            for moved, step in moves
        )
        yield from _that_run(graph, stretch, ((shape, {}) for shape in around if min(shape) > 0))


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
        or [some[axis]]
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
