"""A convolution over an upsampled map is four over the map, one for each phase of its output.

    Conv(U), U = x twice as large  ->  DepthToSpace(Concat(Conv(x), Conv(x), Conv(x), Conv(x)))
    Conv(Concat(U, z))             ->  Conv(z) + DepthToSpace(Concat(Conv(x), ...))

The four have smaller kernels, sums of taps that read the same x (`phase_kernels`): 2x2 for 3x3. U
may be larger by 4, 6, ... in height or width: half of the factor stays, as an upsampling in front.

1. Conv: two spatial axes, one group, no strides and no dilations, padded so that the output is as
   large as the input; its weight and bias are constant, in float32 or float16.
2. U comes from a Resize or an Upsample that repeats pixels (`upsampling`), by even factors.
3. U and the Concat, along the channels, are for this Conv alone.
4. It pays, for each position of the output: by the prices in `cost`, the multiply-adds saved are
   so many times what DepthToSpace and the Concat in front of it move, as it took when measured
   (`measured`): runtimes fuse less around the new nodes. A sum takes what the Concat took that it
   replaces. Sizes do not matter but for the overhead of the nodes, which counts where they are
   known.
5. The summed taps fit into the model's type.

Tried when there is nothing left to fold: a scale behind the Conv, or a branch beside it, joins it
before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from onnxfuse.affine import Refusal
from onnxfuse.cost import BYTE, DENSE_MAC, ELEMENT, NODE
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import Graph, TensorType
from onnxfuse.messages import attributes, operator
from onnxfuse.rewrites.measured import paying_from
from onnxfuse.rewrites.phase_kernels import extents
from onnxfuse.rewrites.phase_making import Head, Part, replaced
from onnxfuse.rewrites.upsampling import OPERATORS, upsampling

_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_MOVED = 4
"""Elements moved for each of the output: the Concat and DepthToSpace read and write it."""


def split_phases(graph: Graph, skip: frozenset[str], *, margin: float | None = None) -> Outcome:
    """Computes convolutions over upsampled maps at the size of the maps.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.
        margin: What the gain has to exceed; by default, from where on it paid when measured.

    Raises:
        CertificateError: If a replacement does not agree with the nodes it replaces.
    """
    outcome = Outcome()
    if not graph.takes_initializers:
        return outcome
    types: dict[str, TensorType] = {}
    needed = paying_from("phases") if margin is None else margin
    for index in range(len(graph.nodes)):
        head = _head(graph, index, skip)
        if head is None or _gain(graph, head) <= needed:
            continue
        made = replaced(graph, head)
        if isinstance(made, Refusal):
            node = graph.nodes[index]
            outcome.refusals.append((node.name or head.target, node.op_type, made.reason))
            continue
        outcome.folds.append(made)
        types |= _types(graph, made)
    graph.types = {**graph.types, **types}
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _head(graph: Graph, index: int, skip: frozenset[str]) -> Head | None:
    """A convolution over parts, some of which may be upsampled."""
    node = graph.nodes[index]
    if operator(node) != "Conv" or "Conv" in skip:
        return None
    target, weight = node.output[0], graph.constant_shape(node.input[1])
    bias = next(iter(node.input[2:]), "")
    kind = graph.type(target).elem_type
    if kind not in _TYPES or weight is None:
        return None
    if bias and not graph.is_constant(bias):
        return None
    begins = _begins(node, weight[2:])
    if begins is None:
        return None
    concat, parts = _parts(graph, index, weight[1], skip)
    if not _fit_together(parts):
        return None
    return Head(index, concat, target, tuple(parts), node.input[1], bias, begins)


def _begins(node: onnx.NodeProto, kernel: Sequence[int]) -> tuple[int, ...] | None:
    """Padding in front of each axis, of a convolution that keeps the size and does nothing else."""
    given = {name: onnx.helper.get_attribute_value(a) for name, a in attributes(node).items()}
    ones = [list(given.get(name, (1,))) for name in ("strides", "dilations")]
    if any(set(numbers) != {1} for numbers in ones) or given.get("group", 1) != 1:
        return None
    if list(given.get("kernel_shape", kernel)) != list(kernel):
        return None
    whole = [k - 1 for k in kernel]
    auto = given.get("auto_pad", b"NOTSET")
    if auto == b"SAME_UPPER":
        return tuple(n // 2 for n in whole)
    if auto == b"SAME_LOWER":
        return tuple(n - n // 2 for n in whole)
    pads = list(given.get("pads", (0, 0, 0, 0))) if auto == b"NOTSET" else [0, 0, 0, 0]
    if (
        len(pads) != 4
        or min(pads) < 0
        or [p + q for p, q in zip(pads[:2], pads[2:], strict=True)] != whole
    ):
        return None
    return tuple(pads[:2])


def _parts(
    graph: Graph, conv: int, channels: int, skip: frozenset[str]
) -> tuple[int | None, list[Part]]:
    """What a convolution reads, by channels, and the Concat that joins it."""
    name = graph.nodes[conv].input[0]
    index = graph.producers.get(name)
    if index is None or graph.only_reader(name) != conv:
        return None, []
    node = graph.nodes[index]
    if operator(node) != "Concat" or "Concat" in skip:
        return None, [_part(graph, name, (0, channels), conv, skip)]
    shapes = [graph.type(given).shape for given in node.input]
    counts = [s[1] if s is not None and len(s) == 4 else None for s in shapes]
    known = [count for count in counts if isinstance(count, int)]
    axis = getattr(attributes(node).get("axis"), "i", 0)
    if axis not in (1, -3) or len(known) != len(counts) or sum(known) != channels:
        return None, []
    ends = np.cumsum(known).tolist()
    spans = zip([0, *ends], ends, strict=False)
    return index, [
        _part(graph, given, span, index, skip)
        for given, span in zip(node.input, spans, strict=True)
    ]


def _part(
    graph: Graph, name: str, channels: tuple[int, int], reader: int, skip: frozenset[str]
) -> Part:
    """A part, upsampled where that is for its reader alone."""
    index = graph.producers.get(name)
    if index is None or graph.only_reader(name) != reader:
        return Part(name, channels, None)
    left_alone = operator(graph.nodes[index]) in skip & OPERATORS
    return Part(name, channels, None if left_alone else upsampling(graph, index))


def _fit_together(parts: Sequence[Part]) -> bool:
    """True where no tensor would have to have two sizes."""
    factors = [(p.upsampling.x, p.upsampling.factors) for p in parts if p.upsampling]
    factors += [(p.name, (1, 1)) for p in parts if not p.upsampling]
    return len({name for name, _ in factors}) == len(set(factors))


def gain_at(graph: Graph, index: int) -> float | None:
    """The modelled gain of a node's phases; None where it has none."""
    head = _head(graph, index, frozenset())
    return None if head is None else _gain(graph, head)


def _gain(graph: Graph, head: Head) -> float:
    """The time of the multiply-adds saved, less that of more nodes, over that of moving."""
    outputs, _, *kernel = graph.constant_shape(head.weight) or ()
    upsampled = sum(b - a for a, b in (part.channels for part in head.upsampled))
    of_four = math.prod(sum(taps) for taps in extents(kernel, head.begins))
    saved = DENSE_MAC * (math.prod(kernel) - of_four / 4) * upsampled
    moved = BYTE * ELEMENT * _MOVED
    sizes = (graph.type(head.target).shape or ())[2:]
    known = [n for n in sizes if isinstance(n, int)]
    if len(known) == 2:
        saved -= NODE * head.more_nodes / max(outputs * math.prod(known), 1)
    return saved / moved


def _types(graph: Graph, fold: Fold) -> Mapping[str, TensorType]:
    """What is known of the tensors of a replacement."""
    kind = graph.type(fold.target)
    batch = kind.shape[0] if kind.shape else None
    shape = (batch, None, None, None)
    return {n: TensorType(kind.elem_type, shape) for w in fold.after for n in w.outputs} | {
        fold.target: kind
    }
