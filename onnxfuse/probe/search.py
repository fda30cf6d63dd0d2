"""Finding the stretches of a graph that are a convolution without looking like one.

A stretch is tried where it ends: at an image that no rule lifts and that somebody reads as it is.
It starts at the nearest dominator from which it turns out to be a convolution.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxfuse.affine import AffineConv, Refusal, rounded_outside
from onnxfuse.graph import FLOAT_TYPES, Graph, TensorType
from onnxfuse.lift import RULES, Site, View, own_view
from onnxfuse.probe.impulse import TOO_MUCH, read_off, with_ends
from onnxfuse.probe.linearity import WINDOWS
from onnxfuse.probe.proof import Proof, prove
from onnxfuse.probe.run import Run
from onnxfuse.probe.sizes import Setting, runs_of
from onnxfuse.probe.stretch import AffinePart, Stretch
from onnxfuse.reference import UnsupportedOperator

_MOST_TRIES = 6
_MOST_ELEMENTS = 1 << 26
_MOST_WORK = 1 << 37
_MOST_STEPS = 256
_FEWEST_RUNS = 16
_ROUNDINGS = 32
"""Of padding values that somebody computed in the model's own type, as a difference of terms some
times larger than it; other channels tell how large such terms may be."""

_WIDTHS = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in FLOAT_TYPES}

Refused = MutableMapping[tuple[bytes, ...], Refusal]


@dataclass(frozen=True)
class Probed:
    """A stretch that is a convolution.

    Attributes:
        stretch: The nodes.
        view: How its ends are read.
        proof: The convolution and the proof.
    """

    stretch: Stretch
    view: View
    proof: Proof


@dataclass
class Probes:
    """What probing a graph found.

    Attributes:
        found: By target.
        refusals: By target, why the stretch that ends there is no convolution.
    """

    found: dict[str, Probed] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)


class Search:
    """Probing one graph.

    Attributes:
        part: Its affine nodes.
        left: Work that may still be done.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Callable[[], Sequence[Setting]],
        skip: frozenset[str],
        refused: Refused,
    ) -> None:
        """Prepares.

        Args:
            graph: The graph; what is learned about ranks and channels is added to its types.
            settings: Gives the model at several sizes; called only where that is needed.
            skip: Operators that are taken as opaque.
            refused: Stretches, by their nodes, that were refused before; added to.
        """
        self.graph, self._make_settings, self._refused = graph, settings, refused
        self.part = AffinePart(graph, skip)
        self.left = _MOST_WORK
        self._unlifted: dict[str, bool] = {}

    def run(self) -> Probes:
        """Tries every stretch of the graph."""
        probes = Probes()
        for target in list(self.part.parents):
            if not self._is_end(target):
                continue
            outcome = self._probed(target)
            if isinstance(outcome, Probed):
                probes.found[target] = outcome
                self._learn(outcome)
            elif outcome is not None:
                probes.refusals[target] = outcome
        return probes

    @cached_property
    def settings(self) -> Sequence[Setting]:
        """The model at several sizes."""
        return self._make_settings()

    def _rank(self, name: str) -> int | None:
        known = self.graph.type(name).rank
        if known is not None or name not in self.part.parents:
            return known
        shape = self.settings[0].shape(name)
        return None if shape is None else len(shape)

    # Ends and starts ---------------------------------------------------------------------------

    def _is_end(self, name: str) -> bool:
        """True for an image that no rule lifts and that somebody reads as it is."""
        graph = self.graph
        if not self._is_unlifted(name):
            return False
        if name in graph.outputs or name in graph.captured or name in graph.keep:
            return True
        for index in graph.consumers.get(name, ()):
            output = graph.nodes[index].output[0]
            if output in self.part.parents:
                if not self._is_unlifted(output):
                    return True
            elif graph.type(output).elem_type in (0, *FLOAT_TYPES):
                return True
        return False

    def _is_unlifted(self, name: str) -> bool:
        """True for an affine tensor that no rule lifts, as an image or in its operator's view."""
        known = self._unlifted.get(name)
        if known is None:
            known = self._unlifted[name] = self._look(name)
        return known

    def _look(self, name: str) -> bool:
        if name not in self.part.parents:
            return False
        node = self.graph.nodes[self.graph.producers[name]]
        rule, rank = RULES.get(node.op_type), self._rank(name)
        if rule is None or rank is None or rank < 2:
            return True
        views = {View.image(rank), own_view(self.graph, node) or View.image(rank)}
        return all(isinstance(rule(Site(self.graph, node, name, v)), Refusal) for v in views)

    def _starts(self, target: str, rank: int) -> Iterator[Stretch]:
        """The stretches to try: from what rules made, nearest first, then from other tensors."""
        later = []
        for count, name in enumerate(self.part.dominators(target)):
            stretch = self.part.between(name, target)
            if count >= _MOST_STEPS or any(self._sees_images(n, rank) for n in stretch.affine):
                break
            if self._rank(name) == rank and self._keeps_type(stretch):
                if self._is_unlifted(name):
                    later.append(stretch)
                else:
                    yield stretch
        yield from later

    def _keeps_type(self, stretch: Stretch) -> bool:
        """True when both ends have one type and nothing between them is rounded to less."""
        kind = self.graph.type(stretch.source).elem_type
        made = [self.graph.type(name).elem_type for node in stretch.affine for name in node.output]
        others = [found for found in made if found not in (0, kind)]
        wide = all(_WIDTHS[found] > _WIDTHS[kind] for found in others)
        return wide and self.graph.type(stretch.target).elem_type == kind

    def _sees_images(self, node: onnx.NodeProto, rank: int) -> bool:
        """True for a window over an image of that rank, which is for the rules to lift."""
        return node.op_type in WINDOWS and self._rank(node.output[0]) == rank

    # Stretches ---------------------------------------------------------------------------------

    def _probed(self, target: str) -> Probed | Refusal | None:
        """The first start that succeeds, or why the first of them did not."""
        rank = self._rank(target)
        if rank is None or rank < 3:
            return None
        reason: Refusal | None = None
        for stretch in itertools.islice(self._starts(target, rank), _MOST_TRIES):
            key = tuple(node.SerializeToString() for node in stretch.nodes)
            outcome = self._refused.get(key) or self._tried(stretch, View.image(rank))
            if isinstance(outcome, Probed):
                return outcome
            self._refused[key] = outcome
            reason = reason or outcome
        return reason

    def _tried(self, stretch: Stretch, view: View) -> Probed | Refusal:
        try:
            runs = runs_of(self.graph, stretch, lambda: self.settings)
            first = next(runs, None)
            if first is None:
                return Refusal("it runs at no size that could be found")
            budget = min(self.left, _MOST_WORK // 4) // first.work
            if first.elements > _MOST_ELEMENTS or budget < _FEWEST_RUNS:
                return Refusal(TOO_MUCH)
            term = read_off(first, first.shape, first.rest, budget)
            self.left -= first.calls * first.work
            if isinstance(term, Refusal):
                return term
            alone = self._proof([first], term, view)
            others = [] if isinstance(alone, Refusal) else list(runs)
            if any(run.channels != first.channels for run in others):
                return Refusal("the number of its channels is not fixed")
            proof = self._proof([first, *others], term, view) if others else alone
        except UnsupportedOperator as unsupported:
            return Refusal(f"it cannot be evaluated: {unsupported.reason}")
        return proof if isinstance(proof, Refusal) else Probed(stretch, view, proof)

    def _proof(self, runs: Sequence[Run], term: AffineConv, view: View) -> Proof | Refusal:
        finished = self._finished(term, runs)
        if isinstance(finished, Refusal):
            return finished
        return prove(self.graph, runs, finished, view)

    def _finished(self, term: AffineConv, runs: Sequence[Run]) -> AffineConv | Refusal:
        """The term with its padding behind, and with how far its padding values were rounded."""
        sizes = [(run.shape[2:], run.rest.shape[2:]) for run in runs]
        kind = self.graph.type(runs[0].stretch.source)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        one = np.ones((), dtype)
        rounding = float(np.nextafter(one, one + one)) - 1.0
        size = np.abs(term.outside)
        within = _ROUNDINGS * rounding * np.maximum(size, np.median(size))
        ended = with_ends(term, sizes)
        return ended if isinstance(ended, Refusal) else rounded_outside(ended, within)

    def _learn(self, probed: Probed) -> None:
        """Adds ranks and channels of both ends, where they were not known, to the graph's types."""
        term, stretch = probed.proof.term, probed.stretch
        ends = ((stretch.source, term.in_channels), (stretch.target, term.out_channels))
        for name, channels in ends:
            known = self.graph.type(name)
            shape = known.shape or (None,) * probed.view.rank
            told = TensorType(known.elem_type, (shape[0], channels, *shape[2:]))
            self.graph.types = {**self.graph.types, name: told}
