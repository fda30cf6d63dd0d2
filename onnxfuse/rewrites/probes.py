"""Random values for some nodes of a graph, at sizes at which they run."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Array, Graph
from onnxfuse.messages import attributes
from onnxfuse.reference import UnsupportedOperator, evaluate

_BATCH, _EXTENTS = (2, 3), (5, 4)
_MOST_VALUES = 1 << 20
_RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def probes(
    graph: Graph, source: str, nodes: Sequence[int], axis: int, *, whole: int = _MOST_VALUES
) -> list[dict[str, Array]] | Refusal:
    """Random values of everything that nodes read, of two sizes where they are not known.

    Args:
        graph: The graph.
        source: What the first of them computes on; its channels are known.
        nodes: By index, in order; each computes on what the one in front of it makes.
        axis: The axis of the channels in `source`.
        whole: Up to how many values a source has the size that it has in the model.

    Returns:
        Values by name, without the constants; or why there are none.
    """
    stretch = _Stretch(graph, source, nodes, axis, whole)
    try:
        with np.errstate(all="ignore"):
            return [stretch.probe(*sizes) for sizes in zip(_BATCH, _EXTENTS, strict=True)]
    except UnsupportedOperator as error:
        return Refusal(f"it cannot be certified: {error}")
    except _Unknown as unknown:
        return Refusal(f"it cannot be certified: {unknown}")


class _Unknown(Exception):  # noqa: N818 - named for what it says
    """Something that a probe needs is not known."""


@dataclass(frozen=True)
class _Stretch:
    """What `probes` is given."""

    graph: Graph
    source: str
    nodes: Sequence[int]
    axis: int
    whole: int

    def probe(self, batch: int, extent: int) -> dict[str, Array]:
        graph = self.graph
        rng = np.random.default_rng(zlib.crc32(self.source.encode()))
        shape = self._shape(batch, extent + self._reach())
        given: dict[str, Array] = {self.source: rng.standard_normal(shape)}
        name, values = self.source, dict(given)
        for index in self.nodes:
            node = graph.nodes[index]
            for other in node.input:
                if not other or other in values:
                    continue
                if graph.is_constant(other):
                    values[other] = np.asarray(graph.constant(other))
                    continue
                size = _beside(graph, node, other, values[name].shape)
                values[other] = given[other] = rng.uniform(0.5, 2.0, size)
            name = node.output[0]
            read = {given: values[given] for given in node.input if given}
            try:
                values[name] = evaluate([node], read, graph.opset)[name]
            except (ValueError, IndexError) as error:
                raise _Unknown(f"{node.op_type} does not run on what it is given") from error
        return given

    def _shape(self, batch: int, extent: int) -> tuple[int, ...]:
        """The size of the source: as it is, but smaller where it is large or not known."""
        dims = self.graph.type(self.source).shape
        assert dims is not None  # its channels are known
        usual = [batch if n == 0 else extent for n in range(len(dims))]
        whole = tuple(d if isinstance(d, int) else n for d, n in zip(dims, usual, strict=True))
        reshaped = any(self.graph.nodes[index].op_type in _RESHAPING for index in self.nodes)
        size = np.prod(whole, dtype=float)
        if size <= self.whole or (reshaped and size <= _MOST_VALUES):
            return whole
        if reshaped:
            raise _Unknown("it is reshaped, and too large")
        pairs = enumerate(zip(dims, whole, usual, strict=True))
        less = tuple(w if a == self.axis or d == 1 or w < n else n for a, (d, w, n) in pairs)
        if np.prod(less, dtype=float) > _MOST_VALUES:
            raise _Unknown("its windows reach too far")
        return less

    def _reach(self) -> int:
        """How many pixels the windows of the nodes span."""
        span, stride = 0, 1
        for index in self.nodes:
            given = attributes(self.graph.nodes[index])
            kernel, steps, gaps = (
                max(given[name].ints) if name in given and given[name].ints else 1
                for name in ("kernel_shape", "strides", "dilations")
            )
            span += (kernel - 1) * gaps * stride
            stride *= steps
        return span + stride


def _beside(
    graph: Graph, node: onnx.NodeProto, name: str, like: tuple[int, ...]
) -> tuple[int, ...]:
    """A size for another input of a node, where the one it has to fit is known."""
    shape = graph.type(name).shape
    if shape is None or name not in graph.data(graph.producers[node.output[0]]):
        raise _Unknown(f"what {name!r} holds is not known")
    if node.op_type == "Concat":
        axis = attributes(node)["axis"].i % len(like)
        count = shape[axis]
        assert isinstance(count, int)
        return (*like[:axis], count, *like[axis + 1 :])
    ends = like[len(like) - len(shape) :]
    return tuple(1 if n == 1 else m for n, m in zip(shape, ends, strict=True))
