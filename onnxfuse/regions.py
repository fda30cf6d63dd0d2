"""The affine part of a graph: which tensors are an affine map of which ancestors.

For every tensor the candidate sources are its dominators in the affine part: ancestors through
which every path passes. They are enumerated from the inputs down, as single-input cuts are in
technology mapping: the sources of a node's output are those that all of its inputs have in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from onnxfuse import cost
from onnxfuse.affine import (
    AffineConv,
    FixedWindow,
    Refusal,
    Size,
    Term,
    compose,
    identity,
    large_arrays_freed,
    regroup,
    trim,
)
from onnxfuse.graph import FLOAT_TYPES, Dim, Graph
from onnxfuse.lift import RULES, Site, Step, View, own_view, protected
from onnxfuse.messages import operator
from onnxfuse.probe import Load, Probed, Probes
from onnxfuse.turned import Source, Turned, across, order_of

MAX_SOURCES = 16
NOMINAL_EXTENT = 32
_TIDY_ELEMENTS = 1 << 21

_CROPS = frozenset({"Pad", "Slice"})
"""Where no operator tells how tensors are read, those that move pixels suggest images."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to compute a tensor: `term` applied to `source`.

    Attributes:
        source: Name of the tensor to compute from.
        view: How the target is read, and the source if it is not turned.
        term: The map.
        work: What the nodes for it would cost.
        size: Spatial size of the source; static, or nominal where it is not known.
        turned: How the source is read when a Transpose lies between; None when none does.
    """

    source: str
    view: View
    term: Term
    work: cost.Work
    size: Size
    turned: Turned | None = None

    @property
    def origin(self) -> Source:
        """What the map starts from."""
        return self.turned or self.source

    @property
    def nodes(self) -> int:
        """Nodes that it takes, unless it is trivial."""
        term, turns = self.term, int(self.turned is not None)
        if isinstance(term, FixedWindow) or term.is_channelwise:
            return 1 + turns
        shifts = term.reads_outside and term.outside_of is not None
        biased = term.bias_of is not None and not (self.view.spatial or self.view == View.image(2))
        return 1 + shifts + biased + turns


@dataclass
class Regions:
    """Affine tensors of one graph.

    Attributes:
        graph: The graph.
        component: For each affine tensor, a number shared by the tensors it is connected with.
        candidates: For each affine tensor, its maps from sources above its own node's inputs.
        refusals: Why a node, by its index, or one of its combinations, was left alone.
        sizes: Spatial sizes of affine tensors; static, or nominal where not known.
        probed: Stretches that are convolutions without looking like one, by target.
    """

    graph: Graph
    probed: Mapping[str, Probed] = field(default_factory=dict)
    component: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    refusals: dict[int, Refusal] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)

    @cached_property
    def _inside(self) -> frozenset[str]:
        """Tensors within stretches and at their ends, but at no start."""
        starts = {probed.stretch.source for probed in self.probed.values()}
        made = {name for probed in self.probed.values() for name in probed.proof.loads}
        return frozenset(made - starts)

    @cached_property
    def _loads(self) -> dict[str, tuple[float, Load]]:
        """For tensors within stretches: images in what was probed, and what they took there."""
        return {
            name: (probed.proof.shapes[0][0] * self._scale(probed), load)
            for probed in self.probed.values()
            for name, load in probed.proof.loads.items()
        }

    def _scale(self, probed: Probed) -> float:
        """How many times larger the source was when it was probed, for one image."""
        shape = probed.proof.shapes[0]
        return math.prod(shape[1:]) / max(self.elements(probed.stretch.source), 1)

    def product(self, name: str, read: int) -> cost.Work | None:
        """The cost of a product within a stretch that reads `read` values; None elsewhere."""
        known = self._loads.get(name)
        if known is None or not known[1].macs:
            return None
        return cost.product(round(known[1].macs / known[0]), read + self.elements(name))

    def elements(self, name: str) -> int:
        """Values in a tensor for one image; nominal where its size is not known."""
        shape = self.graph.type(name).shape
        if name in self._inside and (shape is None or not all(isinstance(d, int) for d in shape)):
            images, load = self._loads[name]
            return max(round(load.elements / images), 1)
        if not shape:
            return 1
        dims = [d if isinstance(d, int) else NOMINAL_EXTENT for d in shape[1:]]
        if name in self.sizes and len(self.sizes[name]) == len(dims) - 1:
            dims[1:] = self.sizes[name]
        return math.prod(dims)

    def identity(self, name: str, view: View) -> AffineConv | None:
        """The tensor as a map of itself; None when its channels are not known, or none."""
        shape = self.graph.type(name).shape
        channels = shape[view.axis] if shape is not None and len(shape) == view.rank else None
        if not isinstance(channels, int) or channels < 1:
            return None
        return identity(channels, len(view.spatial))

    def shape(self, source: Source) -> tuple[Dim, ...] | None:
        """Shape of a source as its map reads it, or None."""
        if isinstance(source, str):
            return self.graph.type(source).shape
        shape = self.graph.type(source.name).shape
        return None if shape is None else source.shape(shape)

    def candidate(self, source: Source, view: View, term: Term) -> Candidate:
        """A map with its price; looks for zero blocks where they may be and looking is cheap."""
        size = self._nominal_size(source, view)
        if isinstance(term, AffineConv) and self.static_size(source, view) is None:
            size = cost.beyond_crops(term, size)
        if isinstance(term, AffineConv) and term.is_selective:
            elements = term.out_channels * term.in_channels // term.groups
            if elements * math.prod(term.kernel) <= _TIDY_ELEMENTS:
                term = trim(regroup(term))
        pixels = math.prod(size) if view.spatial else self._rows(source, view)
        spatial = bool(view.spatial)
        biased = spatial or view == View.image(2)
        work = cost.lowered(term, size, pixels, spatial=spatial, biased=biased)
        if isinstance(source, str):
            return Candidate(source, view, term, work, size)
        turning = cost.movement(2 * pixels * min(term.in_channels, term.out_channels))
        return Candidate(source.name, view, term, cost.plus(work, turning), size, source)

    def static_size(self, source: Source, view: View) -> Size | None:
        """Spatial size of a source, or None where it is not a number."""
        shape = self.shape(source) or ()
        sizes = tuple(d for a in view.spatial if a < len(shape) and isinstance(d := shape[a], int))
        return sizes if len(sizes) == len(view.spatial) else None

    def _nominal_size(self, source: Source, view: View) -> Size:
        known = self.sizes.get(source, ()) if isinstance(source, str) else ()
        if self.static_size(source, view) is None and len(known) == len(view.spatial):
            return known
        shape = self.shape(source) or ()
        sizes = (shape[axis] if axis < len(shape) else None for axis in view.spatial)
        return tuple(n if isinstance(n, int) else NOMINAL_EXTENT for n in sizes)

    def _rows(self, source: Source, view: View) -> int:
        shape = self.shape(source) or ()
        channels = shape[view.axis] if len(shape) == view.rank else None
        symbolic = not all(isinstance(d, int) for d in shape)
        if symbolic and source in self._inside and isinstance(channels, int):
            assert isinstance(source, str)
            return max(self.elements(source) // max(channels, 1), 1)
        others = [d for a, d in enumerate(shape) if a not in (0, view.axis)]
        return math.prod(d if isinstance(d, int) else NOMINAL_EXTENT for d in others)


def find_regions(
    graph: Graph, skip: frozenset[str] = frozenset(), probes: Probes | None = None
) -> Regions:
    """Enumerates the affine maps of a graph.

    Args:
        graph: The graph.
        skip: Operators that are taken as opaque.
        probes: What probing the graph found.
    """
    return _Finder(graph, skip, probes or Probes()).run()


def _step(probed: Probed) -> Step:
    term = probed.proof.term
    return Step((probed.stretch.source,), lambda maps, size: compose(term, maps[0], size))


class _Finder:
    """One pass over a graph, in topological order."""

    def __init__(self, graph: Graph, skip: frozenset[str], probes: Probes) -> None:
        self.graph, self.probes = graph, probes
        self.found = Regions(graph, probes.found)
        self._inside = {
            name
            for probed in probes.found.values()
            for node in probed.stretch.affine
            for name in node.output
        }
        self._root: dict[str, str] = {}
        self._views: dict[str, list[View]] = {}
        self._maps: dict[tuple[str, View], dict[Source, Term]] = {}
        self._turns: list[tuple[str, str]] = []
        self._eligible = [self._is_eligible(i, node, skip) for i, node in enumerate(graph.nodes)]

    def run(self) -> Regions:
        self._connect()
        for index, node in enumerate(self.graph.nodes):
            if self._eligible[index]:
                with large_arrays_freed():
                    self._visit(index, node)
            if operator(node) == "Transpose":
                self._turn(node)
        self._join_across_turns()
        return self.found

    def _is_eligible(self, index: int, node: onnx.NodeProto, skip: frozenset[str]) -> bool:
        if not operator(node) or node.op_type in skip or not node.output:
            return False
        if node.output[0] not in self._inside and node.op_type not in RULES:
            return False
        if self.graph.type(node.output[0]).elem_type not in FLOAT_TYPES:
            return False
        if any(0 in (self.graph.type(name).shape or ()) for name in node.output):
            return False  # no elements, nothing to compute
        if not self.graph.data(index):
            return False
        refusal = protected(self.graph, node)
        if refusal is not None:
            self.found.refusals[index] = refusal
        return refusal is None

    # Components --------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Groups the tensors that affine nodes connect, and collects the views used in a group."""
        for index, node in enumerate(self.graph.nodes):
            if self._eligible[index]:
                first = self._find(node.output[0])
                for name in (*node.output[1:], *self.graph.data(index)):
                    if name:
                        self._root[self._find(name)] = first
        numbers: dict[str, int] = {}
        for index, node in enumerate(self.graph.nodes):
            if self._eligible[index]:
                root = self._find(node.output[0])
                number = numbers.setdefault(root, len(numbers))
                for name in filter(None, node.output):
                    self.found.component[name] = number
                views = self._views.setdefault(root, [])
                found = [own_view(self.graph, node)]
                found += [p.view for name in node.output if (p := self.probes.found.get(name))]
                views.extend(v for v in dict.fromkeys(found) if v is not None and v not in views)
        for node in self.graph.nodes:
            self._carry_view(node)
        for index, node in enumerate(self.graph.nodes):
            if self._eligible[index] and node.op_type in _CROPS:
                views = self._views[self._find(node.output[0])]
                rank = self.graph.type(node.output[0]).rank or 0
                if not views and rank > 2:
                    views.append(View.image(rank))

    def _find(self, name: str) -> str:
        while (parent := self._root.get(name, name)) != name:
            self._root[name] = self._root.get(parent, parent)
            name = parent
        return name

    # Candidates --------------------------------------------------------------------------------

    def _visit(self, index: int, node: onnx.NodeProto) -> None:
        for output in filter(None, node.output):
            if output in self.probes.found:
                probed = self.probes.found[output]
                self._extend(index, output, probed.view, _step(probed))
        rule = RULES.get(node.op_type)
        rank = self.graph.type(node.output[0]).rank
        if rule is None or rank is None:
            return
        own = own_view(self.graph, node)
        views = self._views[self._find(node.output[0])] if own is None else [own]
        for view in views:
            if view.rank != rank:
                continue
            for output in filter(None, node.output):
                step = rule(Site(self.graph, node, output, view))
                if isinstance(step, Refusal):
                    self.found.refusals.setdefault(index, step)
                else:
                    self._extend(index, output, view, step)

    def _extend(self, index: int, output: str, view: View, step: Step) -> None:
        """Maps to `output` from every source that the step's inputs have in common."""
        if not step.extends:
            term = step.combine((), None)
            assert not isinstance(term, Refusal)
            self._store(output, view, {step.inputs[0]: term})
            return
        sources = [self._sources(name, view) for name in step.inputs]
        if any(found is None for found in sources):
            return
        known = [found for found in sources if found is not None]
        common = [s for s in known[0] if all(s in other for other in known[1:])]
        if not common:
            self.found.refusals.setdefault(index, Refusal("its inputs have no common source"))
        maps: dict[Source, Term] = {}
        for source in common:
            terms = [found[source] for found in known]
            term = step.combine(terms, self.found.static_size(source, view))
            if isinstance(term, Refusal):
                self.found.refusals.setdefault(index, term)
            else:
                maps[source] = term
        self._store(output, view, maps)

    def _sources(self, name: str, view: View) -> dict[Source, Term] | None:
        """The maps to a tensor, its own identity first; None when its channels are not known."""
        own = self.found.identity(name, view)
        return None if own is None else {name: own, **self._maps.get((name, view), {})}

    def _store(self, output: str, view: View, maps: Mapping[Source, Term]) -> None:
        """Keeps the cheapest maps, and prices them."""
        found = [self.found.candidate(source, view, term) for source, term in maps.items()]
        found.sort(key=lambda c: c.work.nanoseconds)
        found = found[:MAX_SOURCES]
        if not found:
            return
        kept = {c.origin for c in found}
        self._maps[output, view] = {s: t for s, t in maps.items() if s in kept}
        nearest = min(found, key=lambda c: list(maps).index(c.origin))
        if view.spatial and isinstance(nearest.term, AffineConv):
            size = tuple(max(n, 1) for n in nearest.term.output_size(nearest.size))
            self.found.sizes.setdefault(output, size)
        self.found.candidates.setdefault(output, []).extend(found)

    # Transposes --------------------------------------------------------------------------------

    def _carry_view(self, node: onnx.NodeProto) -> None:
        """Where nothing else tells how a Transpose's output is read: as its input is."""
        if operator(node) != "Transpose":
            return
        order, behind = order_of(self.graph, node), self._views.get(self._find(node.output[0]))
        if order is None or behind != []:
            return
        for view in self._views.get(self._find(node.input[0]), ()):
            if len(order) == view.rank > 2 and order[1] == view.axis:
                behind.append(View.image(view.rank))

    def _turn(self, node: onnx.NodeProto) -> None:
        """Maps to a Transpose's output, in each view in which it is read, from turned sources."""
        name, output = node.input[0], node.output[0]
        order = order_of(self.graph, node)
        if order is None or name not in self.found.component:
            return
        for behind in self._views.get(self._find(output), ()):
            front = self._views.get(self._find(name), ())
            maps = across(self._maps, name, order, front, behind)
            if maps:
                self._maps[output, behind] = {**self._maps.get((output, behind), {}), **maps}
                self._turns.append((name, output))

    def _join_across_turns(self) -> None:
        """One component on both sides: they are planned together."""
        component = self.found.component
        roots = {self._find(name): name for name in component}
        for name, output in self._turns:
            old, new = component[roots[self._find(output)]], component[name]
            component[output] = old
            joined = (member for member, number in component.items() if number == old)
            component.update(dict.fromkeys(list(joined), new))
