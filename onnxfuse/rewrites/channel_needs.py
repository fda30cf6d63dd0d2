"""Which channels may go, and how many of them do.

Channels that ties join go together or not at all: they are one class. A class may go where every
layer that reads one of its channels

1. multiplies it by zeros only, or
2. finds it constant, and does not reach beyond the image, or the constant is 0: its bias takes it
   in.

3. Nobody else reads it: no other operator, no body, no output.

Of the classes that lie in the same tensors as many go as leave a multiple of `LANES`, and one block
at least: runtimes compute whole blocks of channels. (Convs 3x3 with 49 or 57 channels between them
take as long as with 64, and with 48 a tenth less.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxfuse.cost import LANES
from onnxfuse.graph import FLOAT_TYPES, Graph
from onnxfuse.messages import operator
from onnxfuse.rewrites.channel_nodes import Layer, Role, Span, Tie, role
from onnxfuse.rewrites.channel_values import Surveyed, Values, constant_channels

Mask = NDArray[np.bool_]
_Ids = NDArray[np.intp]
_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Removal:
    """Channels that go together.

    Attributes:
        kept: Of every tensor that loses channels, in order, those that it keeps.
        nodes: The nodes that make or read those tensors, by index, in order.
        count: How many classes of channels there were, where any go.
        idle: How many of them may go.
        left: How many are left.
    """

    kept: Mapping[str, Mask]
    nodes: tuple[int, ...]
    count: int
    idle: int
    left: int


@dataclass(frozen=True)
class Plan:
    """What is removed from a graph.

    Attributes:
        roles: What its nodes do with channels, by index.
        spans: The channels of its tensors.
        values: Those that are constant.
        removals: What goes, by the first node.
    """

    roles: Mapping[int, Role]
    spans: Mapping[str, Span]
    values: Values
    removals: Sequence[Removal]


def plan(graph: Graph, skip: frozenset[str]) -> Plan | None:
    """What may go, and pays; None where no weight of the graph has a filter or column of zeros.

    Args:
        graph: The graph.
        skip: Operators that are left alone.
    """
    zeros = dict(_zeros(graph))
    if not zeros:
        return None
    survey = _Survey(graph, skip)
    rows, columns = survey.assigned(zeros)
    values = constant_channels(Surveyed(graph, survey.roles, survey.spans, rows))
    classes = _Classes(survey)
    for index, found in survey.roles.items():
        if isinstance(found, Layer) and survey.reads(found):
            idle = columns.get(index, np.zeros(found.x_span.count, np.bool_))
            if found.x in values:
                value = values[found.x]
                idle = idle | ((value == 0) if found.reaches else np.isfinite(value))
            classes.block(found.x, ~idle)
    for name in survey.pinned:
        classes.block(name, np.ones(survey.spans[name].count, np.bool_))
    removals = list(_removals(survey, classes))
    return Plan(survey.roles, survey.spans, values, removals)


class _Survey:
    """What the nodes of a graph do with channels.

    Attributes:
        roles: Of nodes of which it is known, by index, in order.
        spans: Of tensors that they make.
        pinned: Tensors that something else reads.
    """

    def __init__(self, graph: Graph, skip: frozenset[str]) -> None:
        self.graph = graph
        self.roles: dict[int, Role] = {}
        self.spans: dict[str, Span] = {}
        self.pinned: set[str] = set()
        for index, node in enumerate(graph.nodes):
            found = None if node.op_type in skip else role(graph, index, self.spans)
            if found is not None:
                self.roles[index] = found
                self.spans[found.y] = found.y_span
            self.pinned.update(set(graph.reads[index]).difference(self._known(found)))
        self.pinned.update(graph.outputs, graph.captured, graph.keep)
        self.pinned &= self.spans.keys()

    def reads(self, layer: Layer) -> bool:
        """True for a layer whose input has its channels where the layer looks for them."""
        return self.spans.get(layer.x) == layer.x_span

    def _known(self, found: Role | None) -> tuple[str, ...]:
        """What a node reads in the way that its role says."""
        if isinstance(found, Tie):
            return found.inputs
        return (found.x,) if found is not None and self.reads(found) else ()

    def assigned(
        self, zeros: Mapping[tuple[int, int], Mask]
    ) -> tuple[dict[int, Mask], dict[int, Mask]]:
        """Filters, and columns of weights, that are zero: by node, where there are any."""
        rows: dict[int, Mask] = {}
        columns: dict[int, Mask] = {}
        for (index, axis), zero in zeros.items():
            found = self.roles.get(index)
            if isinstance(found, Layer):
                (rows if axis == found.rows else columns)[index] = zero
            elif found is not None and axis == 0:
                rows[index] = zero
        return rows, columns


def _zeros(graph: Graph) -> Iterator[tuple[tuple[int, int], Mask]]:
    """Where weights are zero all along their first axis, or their second one: by node and axis."""
    for index, node in enumerate(graph.nodes):
        if operator(node) not in _WEIGHTED or graph.constant_type(node.input[1]) not in FLOAT_TYPES:
            continue
        used = np.asarray(graph.constant(node.input[1])) != 0
        used = used.any(axis=tuple(range(2, used.ndim)))
        for axis in range(used.ndim):
            zero = ~(used if used.ndim == 1 else used.any(axis=1 - axis))
            if zero.any():
                yield (index, axis), zero


class _Classes:
    """Classes of channels that ties join, by union and find over arrays of numbers.

    Attributes:
        ids: The class of each channel, by tensor, in order.
        total: Classes have numbers below.
    """

    def __init__(self, survey: _Survey) -> None:
        self.ids: dict[str, _Ids] = {}
        joined: list[tuple[_Ids, _Ids]] = []
        total = 0
        for index, found in survey.roles.items():
            if isinstance(found, Layer):
                self.ids[found.y] = np.arange(total, total + found.y_span.count)
                total += found.y_span.count
                continue
            given = [self.ids[name] for name in found.inputs]
            if survey.graph.nodes[index].op_type == "Concat":
                self.ids[found.y] = np.concatenate(given)
                continue
            joined += [(given[0], other) for other in given[1:]]
            self.ids[found.y] = given[0] if found.repeat == 1 else np.repeat(given[0], found.repeat)
        self.total = total
        self._parents = np.arange(total)
        self._is_blocked = np.zeros(total, np.bool_)
        for some, others in joined:
            self._join(some, others)
        for name, ids in self.ids.items():
            self.ids[name] = self._roots(ids)

    def block(self, name: str, channels: Mask) -> None:
        """Says that some channels of a tensor are needed."""
        self._is_blocked[self.ids[name][channels]] = True

    def free(self, name: str) -> Mask:
        """The channels of a tensor that nobody needs."""
        return self.are_free(self.ids[name])

    def are_free(self, ids: _Ids) -> Mask:
        """The same for classes."""
        return ~self._is_blocked[ids]

    def _roots(self, ids: _Ids) -> _Ids:
        while True:
            parents = self._parents[ids]
            if np.array_equal(parents, ids):
                return ids
            ids = parents

    def _join(self, some: _Ids, others: _Ids) -> None:
        """Repeated until nothing is apart: one channel may be joined with several at once."""
        while True:
            some, others = self._roots(some), self._roots(others)
            if np.array_equal(some, others):
                return
            self._parents[np.maximum(some, others)] = np.minimum(some, others)

    def bundles(self, names: Sequence[str]) -> Iterator[_Ids]:
        """The classes in some tensors, those that lie in the same of them together."""
        labels = np.zeros(len(self._parents), np.intp)
        count = 1
        for name in names:
            ids = self.ids[name]
            found, inverse = np.unique(labels[ids], return_inverse=True)
            labels[ids] = count + inverse.reshape(ids.shape)
            count += len(found)
        members = np.flatnonzero(labels)
        members = members[np.argsort(labels[members], kind="stable")]
        ends = np.flatnonzero(np.diff(labels[members])) + 1
        yield from np.split(members, ends)


def _removals(survey: _Survey, classes: _Classes) -> Iterator[Removal]:
    """Whole blocks of channels, by what hangs together."""
    names = [name for name in classes.ids if classes.free(name).any()]
    bundle_of = np.full(classes.total, -1)
    counts: list[tuple[int, int, int]] = []
    for bundle in classes.bundles(names):
        idle = bundle[classes.are_free(bundle)]
        left = LANES * max(-(-(len(bundle) - len(idle)) // LANES), 1)
        if left < len(bundle):
            bundle_of[idle[: len(bundle) - left]] = len(counts)
            counts.append((len(bundle), len(idle), left))
    found = {name: bundle_of[classes.ids[name]] for name in names}
    cut = {name: numbers for name, numbers in found.items() if (numbers >= 0).any()}
    for group in _groups(survey, cut.keys()):
        bundles = np.unique(np.concatenate([cut[name] for name in group]))
        totals = np.sum([counts[number] for number in bundles if number >= 0], axis=0)
        nodes = {index for name in group for index in survey.graph.consumers[name]}
        nodes |= {survey.graph.producers[name] for name in group}
        masks = {name: cut[name] < 0 for name in group}
        yield Removal(masks, tuple(sorted(nodes)), *map(int, totals))


def _groups(survey: _Survey, cut: Collection[str]) -> list[list[str]]:
    """Tensors that ties join; the groups, and each of them, in order."""
    group_of = {name: [name] for name in cut}
    for found in survey.roles.values():
        if isinstance(found, Tie):
            tied = [name for name in dict.fromkeys((*found.inputs, found.y)) if name in cut]
            for name in tied[1:]:
                first, second = group_of[tied[0]], group_of[name]
                if first is not second:
                    larger, smaller = sorted((first, second), key=len, reverse=True)
                    larger += smaller
                    group_of.update(dict.fromkeys(smaller, larger))
    order = {name: number for number, name in enumerate(cut)}
    groups = {id(group): group for group in group_of.values()}
    return [sorted(group, key=order.__getitem__) for group in groups.values()]
