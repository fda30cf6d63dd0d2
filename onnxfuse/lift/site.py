"""A node as a lift rule sees it: attributes, constants, and which axis holds the channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxfuse.affine import Array, Deferred, Refusal, Size, Term
from onnxfuse.graph import FLOAT_TYPES, Dim, Graph, TensorType
from onnxfuse.messages import attributes

_MOST_CHANNELS = 1 << 20


@dataclass(frozen=True)
class View:
    """How a tensor is read as a signal.

    Attributes:
        axis: The axis of the channels.
        rank: Number of dimensions of the tensor.
        spatial: The axes over which a kernel may reach; every other axis is batch.
    """

    axis: int
    rank: int
    spatial: tuple[int, ...]

    @staticmethod
    def image(rank: int) -> View:
        """(N, C, *spatial), as Conv sees it."""
        return View(1, rank, tuple(range(2, rank)))

    @staticmethod
    def matrix(axis: int, rank: int) -> View:
        """Channels on one axis and nothing but batch around it, as MatMul sees it."""
        return View.image(2) if (axis, rank) == (1, 2) else View(axis, rank, ())


Combine = Callable[[Sequence[Term], Size | None], Term | Refusal]


@dataclass(frozen=True)
class Step:
    """An affine operator: `combine` turns maps from a source to each input into one to the output.

    Attributes:
        inputs: The data inputs, in the order in which `combine` takes their maps.
        combine: Takes the maps and the spatial size of the source where it is known.
        extends: False when the input's channels lie on another axis, so that nothing in front of
            the operator can be taken in; `combine` then takes no maps.
    """

    inputs: tuple[str, ...]
    combine: Combine
    extends: bool = True


@dataclass(frozen=True)
class Site:
    """One output of a node, read in one view.

    Attributes:
        graph: The graph around it.
        node: The node.
        output: The output's name.
        view: Where the channels are.
    """

    graph: Graph
    node: onnx.NodeProto
    output: str
    view: View

    @cached_property
    def _attributes(self) -> dict[str, onnx.AttributeProto]:
        return attributes(self.node)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self._attributes.get(name)
        return default if found is None else int(found.i)

    def real(self, name: str, default: float) -> float:
        """A float attribute, widened from float32."""
        found = self._attributes.get(name)
        return default if found is None else float(found.f)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self._attributes.get(name)
        return default if found is None else found.s.decode("utf-8", "replace")

    def integer_list(self, name: str) -> tuple[int, ...] | None:
        """An integer list attribute, or None when it is not given."""
        found = self._attributes.get(name)
        return None if found is None else tuple(found.ints)

    def input(self, index: int) -> str:
        """The name of an input; empty when it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def type(self, name: str) -> TensorType:
        """What is known of a tensor's type."""
        return self.graph.type(name)

    def channels(self, name: str) -> int | None:
        """Size of the channel axis; None where it is unknown, symbolic, 0 or absurd."""
        size = self.dims(name)[self.view.axis]
        return size if isinstance(size, int) and 0 < size <= _MOST_CHANNELS else None

    def size(self, name: str) -> Size | None:
        """Spatial size, or None where one is unknown or symbolic."""
        dims = self.dims(name)
        sizes = [d for axis in self.view.spatial if isinstance(d := dims[axis], int)]
        return tuple(sizes) if len(sizes) == len(self.view.spatial) else None

    def dims(self, name: str) -> tuple[Dim, ...]:
        """A tensor's shape; of one that is unknown, or has another rank, nothing is known."""
        shape = self.type(name).shape or ()
        return shape if len(shape) == self.view.rank else (None,) * self.view.rank

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Shape of a constant of floating numbers, or None when it is no such constant."""
        if self.graph.constant_type(name) not in FLOAT_TYPES:
            return None
        return self.graph.constant_shape(name)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A constant integer tensor, flattened, or None when it is no such constant."""
        value = self.graph.constant(name)
        if value is None or value.dtype.kind not in "iu":
            return None
        return tuple(int(v) for v in np.ravel(value))

    def axes(self, given: Sequence[int]) -> tuple[int, ...] | None:
        """Axes counted from the front, or None where one is not there, or there twice."""
        rank = self.view.rank
        found = tuple(axis % rank for axis in given if -rank <= axis < rank)
        return found if len(set(found)) == len(given) else None

    def float64(self, name: str) -> Deferred:
        """A constant tensor as float64, loaded when needed."""
        return Deferred(lambda: np.asarray(self.graph.constant(name), dtype=np.float64))

    def per_channel(self, name: str, against: str) -> Deferred | Refusal:
        """A constant that broadcasts against a tensor, as one value per channel of that tensor.

        Constants are classified by right-aligned broadcast, never by their squeezed size: with
        C == H == W a constant of shape [W] varies over the width, not over the channels.

        Returns:
            The values, of shape (channels,), or why it is no such constant.
        """
        shape = self.shape_of(name)
        channels = self.channels(against)
        if shape is None:
            return Refusal("its operand is not constant")
        if channels is None:
            return Refusal("the number of its channels is not known")
        if len(shape) > self.view.rank:
            return Refusal(f"its constant of shape {list(shape)} adds dimensions")
        aligned = (1,) * (self.view.rank - len(shape)) + shape
        varying = [axis for axis, size in enumerate(aligned) if size != 1]
        if aligned[self.view.axis] not in (1, channels):
            return Refusal(f"its constant of shape {list(shape)} widens the tensor")
        others = [axis for axis in varying if axis != self.view.axis]
        if others:
            return Refusal(f"its constant of shape {list(shape)} varies over axis {others[0]}")
        axis = self.view.axis

        def value() -> Array:
            full = np.asarray(self.graph.constant(name), dtype=np.float64).reshape(aligned)
            first = tuple(slice(None) if a == axis else 0 for a in range(len(aligned)))
            return np.broadcast_to(full[first], (channels,)).astype(np.float64)

        return Deferred(value)
