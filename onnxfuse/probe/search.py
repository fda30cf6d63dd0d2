"""Finding the stretches of a graph that are a convolution without looking like one.

A stretch is tried where it ends: at an image that no rule lifts and that somebody reads as it is.
It starts at the nearest dominator from which it turns out to be a convolution.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxfuse.affine import AffineConv, Refusal, rounded_outside
from onnxfuse.graph import FLOAT_TYPES, Graph, TensorType
from onnxfuse.lift import RULES, Site, Step, View, own_view
from onnxfuse.lift.movement import LARGEST_PADDING
from onnxfuse.messages import operator
from onnxfuse.probe.impulse import DEPENDS, TOO_MUCH, likely_strides, read_off, with_ends
from onnxfuse.probe.linearity import MOVING, WINDOWS
from onnxfuse.probe.proof import Proof, prove
from onnxfuse.probe.run import BeyondMeans, Run
from onnxfuse.probe.sizes import Setting, runs_of
from onnxfuse.probe.stretch import AffinePart, Stretch
from onnxfuse.reference import UnsupportedOperator

_MOST_TRIES = 6
_MOST_WORK = 1 << 36
_MOST_AT_ONCE = 1 << 35
_MOST_STEPS = 256
_FEWEST_RUNS = 16
_NO_SIZE = "it runs at no size that could be found"
_OTHER_RANK = "it has another rank than the model says"
_RESIZES = frozenset({"Resize", "Upsample"})
_ROUNDINGS = 32
"""Of padding values that somebody computed in the model's own type, as a difference of terms some
times larger than it; other channels tell how large such terms may be."""

_WIDTHS: dict[int, int] = {
    kind: onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in FLOAT_TYPES
}


@dataclass
class Effort:
    """What probing one model has come to, over all its graphs and passes.

    Attributes:
        left: Work that may still be done, in multiply-adds.
        refused: Stretches, by their nodes, that were refused.
    """

    left: int = _MOST_WORK
    refused: dict[tuple[bytes, ...], Refusal] = field(default_factory=dict)


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
        effort: What was done for the model already.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Callable[[], Sequence[Setting]],
        skip: frozenset[str],
        effort: Effort,
    ) -> None:
        """Prepares.

        Args:
            graph: The graph; what is learned about ranks and channels is added to its types.
            settings: Gives the model at several sizes; called only where that is needed.
            skip: Operators that are taken as opaque.
            effort: What was done for the model already; added to.
        """
        self.graph, self._make_settings, self.effort = graph, settings, effort
        self.part = AffinePart(graph, skip)
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
        for node in self.graph.nodes:
            if operator(node) in _RESIZES:
                probes.refusals[node.output[0]] = Refusal("a resize is no convolution of its input")
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
        """True for an affine tensor that no rule lifts as an image."""
        known = self._unlifted.get(name)
        if known is None:
            known = self._unlifted[name] = name in self.part.parents and not self._lifts(name)
        return known

    def _lifts(self, name: str, *, in_any_view: bool = False) -> bool:
        """True when a rule lifts an affine tensor as an image, or in its operator's own view."""
        node = self.graph.nodes[self.graph.producers[name]]
        rule, rank = RULES.get(node.op_type), self._rank(name)
        if rule is None or rank is None or rank < 2:
            return False
        views = {View.image(rank)}
        if in_any_view and (own := own_view(self.graph, node)) is not None:
            views.add(own)
        return any(isinstance(rule(Site(self.graph, node, name, v)), Step) for v in views)

    def _moves(self, stretch: Stretch) -> bool:
        """True when there is something in a stretch that no rule lifts in any way."""
        return any(not self._lifts(node.output[0], in_any_view=True) for node in stretch.affine)

    def _starts(self, target: str, rank: int) -> Iterator[Stretch]:
        """The stretches to try: from what rules made, nearest first, then from other tensors."""
        later = []
        for count, name in enumerate(self.part.dominators(target)):
            stretch = self.part.between(name, target)
            if count >= _MOST_STEPS or any(self._sees_images(n, rank) for n in stretch.affine):
                break
            if self._rank(name) != rank or not self._keeps_type(stretch):
                continue
            if self._moves(stretch):
                if self._is_unlifted(name) or self._is_padded(name):
                    later.append(stretch)
                else:
                    yield stretch
        yield from later

    def _is_padded(self, name: str) -> bool:
        """True for what a Pad makes: what overwrites the padding is exact in front of it alone."""
        index = self.graph.producers.get(name)
        return index is not None and operator(self.graph.nodes[index]) == "Pad"

    def _keeps_type(self, stretch: Stretch) -> bool:
        """True when both ends have one type, and what is of another is wider and only moved."""
        kind = self.graph.type(stretch.source).elem_type
        others = [
            (node.op_type in MOVING, _WIDTHS[found])
            for node in stretch.affine
            for name in node.output
            if (found := self.graph.type(name).elem_type) not in (0, kind)
        ]
        wider = all(moved and width > _WIDTHS[kind] for moved, width in others)
        return wider and self.graph.type(stretch.target).elem_type == kind

    def _sees_images(self, node: onnx.NodeProto, rank: int) -> bool:
        """True for a window over an image of that rank, which is for the rules to lift."""
        return node.op_type in WINDOWS and self._rank(node.output[0]) == rank

    # Stretches ---------------------------------------------------------------------------------

    def _probed(self, target: str) -> Probed | Refusal | None:
        """The first start that succeeds, or why the first of them did not."""
        rank = self._rank(target)
        if rank is None or rank < 2:
            return None
        reason: Refusal | None = None
        for stretch in itertools.islice(self._starts(target, rank), _MOST_TRIES):
            key = self._key(stretch)
            outcome = self.effort.refused.get(key) or self._tried(stretch, View.image(rank))
            if isinstance(outcome, Probed):
                return outcome
            if outcome.reason != _NO_SIZE:
                self.effort.refused[key] = outcome
            reason = reason or outcome
        return reason

    def _key(self, stretch: Stretch) -> tuple[bytes, ...]:
        """What a stretch is made of: nodes, constants, and the type of its source."""
        held = (np.ascontiguousarray(self.graph.constant(name)) for name in stretch.constants)
        sums = [f"{value.shape} {zlib.crc32(value.tobytes())}".encode() for value in held]
        return str(self.graph.type(stretch.source)).encode(), *sums, *map(_bytes, stretch.nodes)

    def _tried(self, stretch: Stretch, view: View) -> Probed | Refusal:
        try:
            empty: list[Run] = []
            runs = _not_empty(runs_of(self.graph, stretch, lambda: self.settings), empty)
            first = next(runs, None)
            if first is None:
                return Refusal(_NO_SIZE)
            if not _is_image(first, view):
                return Refusal(_OTHER_RANK)
            budget = min(self.effort.left, _MOST_AT_ONCE) // first.work
            if budget < _FEWEST_RUNS:
                return Refusal(TOO_MUCH)
            read = self._read(first, budget, view)
            self.effort.left -= first.calls * first.work
            if isinstance(read, Refusal):
                return read
            term, proof = read
            others = list(runs)
            self.effort.left -= sum(2 * run.work for run in others)
            if not all(_is_image(run, view) for run in (*empty, *others)):
                return Refusal(_OTHER_RANK)
            if any(_is_larger(nothing, run) for nothing in empty for run in (first, *others)):
                return Refusal("it makes nothing of images beyond a certain size")
            if any(run.channels != first.channels for run in others):
                return Refusal("the number of its channels is not fixed")
            proved = self._proof([first, *others], term, view) if others else proof
        except UnsupportedOperator as unsupported:
            return Refusal(f"it cannot be evaluated: {unsupported.reason}")
        except BeyondMeans as beyond:
            return Refusal(str(beyond))
        return proved if isinstance(proved, Refusal) else Probed(stretch, view, proved)

    def _read(self, run: Run, most: int, view: View) -> tuple[AffineConv, Proof] | Refusal:
        """The convolution, proved at one size: with likely strides, or else with measured ones."""
        likely = likely_strides(run.shape[2:], run.rest.shape[2:])
        reason: Refusal | None = None
        for strides in (likely, None):
            term = read_off(run, run.shape, run.rest, most, strides)
            if isinstance(term, Refusal):
                reason = term if reason is None or term.reason != DEPENDS else reason
            elif reason is None or term.strides != likely:
                proof = self._proof([run], term, view)
                if isinstance(proof, Proof):
                    return term, proof
                reason = proof
        assert reason is not None
        return reason

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
        if np.any(size > LARGEST_PADDING):
            return Refusal(f"a padding value of {size.max():.4g} would take digits from its input")
        times = _ROUNDINGS if dtype.itemsize > 2 else _ROUNDINGS // 8
        within = times * rounding * np.maximum(size, np.median(size))
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


def _not_empty(runs: Iterator[Run], empty: list[Run]) -> Iterator[Run]:
    """The runs that make something; the others go to `empty`."""
    for run in runs:
        if run.rest.size:
            yield run
        else:
            empty.append(run)


def _is_image(run: Run, view: View) -> bool:
    """True where both ends have the rank that is declared: a Reshape's may depend on its input."""
    return len(run.shape) == run.rest.ndim == view.rank


def _is_larger(one: Run, other: Run) -> bool:
    """True for a run at an image that another one's fits in: a convolution makes more of it."""
    return all(n >= m for n, m in zip(one.shape[2:], other.shape[2:], strict=True))


def _bytes(node: onnx.NodeProto) -> bytes:
    return bytes(node.SerializeToString())
