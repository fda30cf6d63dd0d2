"""Puts the phases of a convolution in, with their proof."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph
from onnxfuse.rewrites.phase_kernels import Phase, extents, phases
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in
from onnxfuse.rewrites.upsampling import Upsampling, half

_MOST_ELEMENTS = 1 << 28
_BATCH = 2


@dataclass(frozen=True)
class Part:
    """Channels of what a convolution reads.

    Attributes:
        name: The tensor.
        channels: Where they begin in the weight, and where they end.
        upsampling: What makes them, where that repeats pixels.
    """

    name: str
    channels: tuple[int, int]
    upsampling: Upsampling | None


@dataclass(frozen=True)
class Head:
    """A convolution over parts, some of which are upsampled.

    Attributes:
        conv: Its index.
        concat: That of the Concat of its parts; None where there is one part.
        target: What it makes.
        parts: Its parts.
        weight: Its weight.
        bias: Its bias, or an empty name.
        begins: Padding in front of each axis.
    """

    conv: int
    concat: int | None
    target: str
    parts: tuple[Part, ...]
    weight: str
    bias: str
    begins: tuple[int, ...]

    @property
    def upsampled(self) -> list[Part]:
        """The parts that are upsampled."""
        return [part for part in self.parts if part.upsampling]

    @property
    def rest(self) -> list[Part]:
        """Those that are not."""
        return [part for part in self.parts if not part.upsampling]

    @property
    def gone(self) -> tuple[int, ...]:
        """The nodes that it takes, by index."""
        found = {p.upsampling.node for p in self.parts if p.upsampling} | {self.conv}
        return tuple(sorted(found if self.concat is None else found | {self.concat}))

    @property
    def more_nodes(self) -> int:
        """How many nodes more its phases take."""
        first, second = len(self.upsampled), len(self.rest)
        halves = {p.name for p in self.parts if p.upsampling and p.upsampling.factors != (2, 2)}
        made = len(halves) + (first > 1) + 6 + (2 + (second > 1) if second else 0)
        return made - len(self.gone)


def replaced(graph: Graph, head: Head) -> Fold | Refusal:
    """Puts the phases in the place of a convolution.

    Args:
        graph: The graph; changed, not committed.
        head: The convolution.

    Raises:
        CertificateError: If they do not agree with it.
    """
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.type(head.target).elem_type)
    shapes = list(_probe_shapes(graph, head))
    weight = graph.constant(head.weight)
    assert weight is not None
    largest = max(sum(map(math.prod, shape.values())) for shape in shapes)
    if largest * math.prod(weight.shape[2:]) > _MOST_ELEMENTS:
        return Refusal("it cannot be certified: its window reaches too far")
    maker = _Maker(graph, head, weight.astype(np.float64))
    maker.make()
    with np.errstate(over="ignore"):
        rounded = {name: value.astype(dtype) for name, value in maker.exact.items()}
    if not all(np.all(np.isfinite(value)) for value in rounded.values()):
        return Refusal(f"sums of its taps overflow {dtype}, or are not finite")
    kernels = ", ".join(map(_by, maker.kernels))
    replacement = Replacement(
        kind="phases",
        formula=f"y = W * U, U twice as large as x: {_by(weight.shape[2:])} as {kernels}",
        source=next(part.upsampling.x for part in head.parts if part.upsampling),
        target=head.target,
        before=head.gone,
        gone=head.gone,
        nodes=maker.nodes,
        constants={**maker.constants, **rounded},
        exact=maker.exact,
    )
    certificate = certify_equal(graph, replacement, _probes(head, shapes))
    if isinstance(certificate, Refusal):
        return certificate
    return put_in(graph, replacement, certificate)


def _by(kernel: Sequence[int]) -> str:
    return "x".join(map(str, kernel))


class _Maker:
    """Makes the nodes one by one, and their constants.

    Attributes:
        exact: Weights, in float64.
        constants: Constants that are not rounded.
        kernels: Sizes of the phases' kernels.
    """

    def __init__(self, graph: Graph, head: Head, weight: NDArray[np.float64]) -> None:
        self.graph, self.head, self.weight = graph, head, weight
        self.nodes: list[onnx.NodeProto] = []
        self.exact: dict[str, NDArray[np.float64]] = {}
        self.constants: dict[str, Array] = {}
        self.kernels: list[tuple[int, ...]] = []

    def make(self) -> None:
        """All of them."""
        head, rest = self.head, self.head.rest
        x = self._joined(self._halves())
        found = list(phases(self._of(head.upsampled), head.begins))
        self.kernels = [phase.weight.shape[2:] for phase in found]
        made = [self._conv(x, phase, biased=not rest) for phase in found]
        last = self._node("DepthToSpace", [self._joined(made)], blocksize=2)
        if rest:
            kernel = self.weight.shape[2:]
            ends = tuple(k - 1 - p for k, p in zip(kernel, head.begins, strict=True))
            z = self._joined([part.name for part in rest])
            straight = self._conv(z, Phase(self._of(rest), head.begins, ends), biased=True)
            self._node("Add", [straight, last])
        self.nodes[-1].output[0] = head.target

    def _halves(self) -> list[str]:
        """The upsampled parts at half their size."""
        made: dict[str, str] = {}
        for part in self.head.upsampled:
            if part.upsampling and part.name not in made:
                name, nodes, constants = half(self.graph, part.upsampling, self.head.target)
                made[part.name] = name
                self.nodes += nodes
                self.constants |= constants
        return [made[part.name] for part in self.head.upsampled]

    def _of(self, parts: Sequence[Part]) -> NDArray[np.float64]:
        """The weight for some parts."""
        return np.concatenate([self.weight[:, slice(*part.channels)] for part in parts], 1)

    def _joined(self, names: Sequence[str]) -> str:
        return names[0] if len(names) == 1 else self._node("Concat", names, axis=1)

    def _conv(self, x: str, phase: Phase, *, biased: bool) -> str:
        weight = self.graph.unique_name(f"{self.head.target}/weight")
        self.exact[weight] = phase.weight
        bias = [self.head.bias] if biased and self.head.bias else []
        kernel, pads = phase.weight.shape[2:], (*phase.begins, *phase.ends)
        return self._node("Conv", [x, weight, *bias], kernel_shape=kernel, pads=pads)

    def _node(self, op_type: str, inputs: Sequence[str], **settings: Any) -> str:
        name = self.graph.unique_name(f"{self.head.target}/{op_type}")
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [name], name=name, **settings))
        return name


def _probe_shapes(graph: Graph, head: Head) -> Iterator[Mapping[str, tuple[int, ...]]]:
    """Shapes of what both sides start from: as small as can be, and with every border apart."""
    kernel = (graph.constant_shape(head.weight) or ())[2:]
    found = [p.upsampling.factors for p in head.parts if p.upsampling]
    whole = [math.lcm(*factors) for factors in zip(*found, strict=True)]
    enough = [
        -(-2 * (max(taps) + 1) // f)
        for taps, f in zip(extents(kernel, head.begins), whole, strict=True)
    ]
    for height, width in dict.fromkeys([(1, 1), (1, 2), (2, 1), (enough[0], enough[1] + 1)]):
        size = (height * whole[0], width * whole[1])
        shapes = {}
        for part in head.parts:
            name, factors = part.name, (1, 1)
            if part.upsampling:
                name, factors = part.upsampling.x, part.upsampling.factors
            count = part.channels[1] - part.channels[0]
            shapes[name] = (_BATCH, count, size[0] // factors[0], size[1] // factors[1])
        yield shapes


def _probes(
    head: Head, shapes: Sequence[Mapping[str, tuple[int, ...]]]
) -> Iterator[dict[str, Array]]:
    """Random tensors, and the sizes that a Resize is told to make of them."""
    rng = np.random.default_rng(zlib.crc32(head.target.encode()))
    for shape in shapes:
        probe: dict[str, Array] = {n: rng.standard_normal(s) for n, s in shape.items()}
        for found in (part.upsampling for part in head.parts):
            if found and found.sizes:
                factors = (1, 1, *found.factors)
                probe[found.sizes] = np.array(shape[found.x], np.int64) * factors
        yield probe
