"""The pipeline: read, normalize, lift, plan, certify, lower, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.fold import FOLDS, Fold, Outcome, fold_graph
from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.lift import RULES
from onnxfuse.messages import all_names, bodies, trained_names
from onnxfuse.normalize import normalize
from onnxfuse.probe import Effort, Search, Setting, model_settings
from onnxfuse.report.counts import assumed_sizes, concrete_types, count, lacks_types
from onnxfuse.report.report import Refused, Report
from onnxfuse.rewrites import INSTEAD, LAST, OPERATORS, REWRITES, TRIED, Rewrite, flush_denormals
from onnxfuse.saving import Saved
from onnxfuse.shapes import default_opset, infer_types
from onnxfuse.symbols import completed_types

STEPS = (FOLDS, *REWRITES, *LAST)
"""What is done to a model, by the names under which it can be left out."""

FEWER_NODES = "fewer nodes"
TRIALS = (FEWER_NODES, *TRIED)
"""What pays on some machines: folds that save nodes at any price, and other rewrites."""

MAX_PASSES = 40
_CLEAN_UPS = 8
OLDEST_OPSET = 7
_NODE_PRICE = 100_000
Progress = Callable[[str], None]


@dataclass(frozen=True)
class OptimizeResult(Saved):
    """An optimized model and the report on it.

    Attributes:
        model: The new model; the one given is not changed.
        report: What was folded, what was refused, and the counts before and after.
        source: The new model, and where it keeps its weights.
    """

    model: onnx.ModelProto
    report: Report
    source: io.Source = field(repr=False)

    def page(self, name: str = "model") -> str:
        """The report as a page of HTML."""
        from onnxfuse.report.html import optimize_page

        return optimize_page(self, name)

    def load(self, tensor: onnx.TensorProto) -> Array:
        """The value of one of the new model's initializers, wherever its data is kept."""
        return self.source.load(tensor)


def optimize(
    model: Any,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    progress: Progress | None = None,
) -> OptimizeResult:
    """Folds every affine region of a model that gets cheaper by it into single nodes.

    The new model computes the same function: each fold is proved in float64 before it is made, and
    rounding to the model's own type is the only difference.

    Args:
        model: A path, an onnx.ModelProto, an onnx_graphsurgeon.Graph or a torch.onnx.ONNXProgram.
        skip: Operators whose rule is left out, such as "AveragePool"; activations too. Or one of
            `STEPS`, as a whole: "folds", "gates", "activations", "moves", "softmaxes", "channels",
            "phases", "shuffles", "splits", "merges", "shifts".
        keep: Tensors that stay in the model under their names.
        progress: Called with a word on each step as it begins.

    Returns:
        The new model and its report.

    Raises:
        ModelError: If the model cannot be used, or an option names what is not there.
        CertificateError: If a fold does not agree with the nodes it replaces.
    """
    return optimize_with(None, model, skip=skip, keep=keep, progress=progress)


def optimize_with(
    trial: str | None,
    model: Any,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    progress: Progress | None = None,
) -> OptimizeResult:
    """`optimize`, and one of `TRIALS` besides."""
    tell = progress or (lambda step: None)
    tell("reading")
    source = io.read(model)
    skip, keep = names_given(skip, "skip"), names_given(keep, "keep")
    return _Run(source, skip, keep, tell, trial).result()


def names_given(given: Iterable[str], option: str) -> frozenset[str]:
    """What an option lists.

    Raises:
        ModelError: It is a single name, or no list.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ModelError(f"{option} takes a list of names, not {given!r}")
    return frozenset(given)


def _repeated(graph: onnx.GraphProto) -> set[str]:
    """Names of tensors that several graphs make, each its own: bodies may use the same ones."""
    seen: set[str] = set()
    repeated: set[str] = set()
    pending = [graph]
    while pending:
        inner = pending.pop()
        made = {name for node in inner.node for name in node.output}
        made.update(info.name for info in inner.input)
        repeated |= seen & made
        seen |= made
        pending.extend(body for node in inner.node for body in bodies(node))
    return repeated


class _Run:
    """One optimization of one model."""

    def __init__(
        self,
        source: io.Source,
        skip: frozenset[str],
        keep: frozenset[str],
        tell: Progress,
        trial: str | None,
    ) -> None:
        self.source, self.model = source, source.model
        self.skip, self.keep, self.tell = skip, keep, tell
        self.node_price = _NODE_PRICE if trial == FEWER_NODES else 0
        self.last = {n: rewrite for n, rewrite in LAST.items() if n != INSTEAD.get(trial or "")}
        self.last |= {n: rewrite for n, rewrite in TRIED.items() if n == trial}
        self.opset = default_opset(self.model)
        self.folds: list[Fold] = []
        self.refusals: list[tuple[str, str, str]] = []
        self.impossible: dict[tuple[str, str], tuple[str, str, str]] = {}
        self.effort = Effort()
        self.flushed: dict[str, int] = {}
        self.unfit: list[tuple[str, str, str]] = []
        self.no_convolution: dict[str, str] = {}
        self.names = frozenset(all_names(self.model.graph))

    def result(self) -> OptimizeResult:
        self._check_options()
        assumed = assumed_sizes(self.model)
        self.tell("inferring shapes")
        types = infer_types(self.model)
        concrete = concrete_types(self.model, assumed, types)
        before = count(self.model, concrete)
        if self.opset >= OLDEST_OPSET:
            self.tell("evaluating constants")
            retried = 0
            for number in range(MAX_PASSES):
                types = self._normalized(types)
                self.tell(f"folding, pass {number + 1}")
                if not self._pass(types):
                    if not self.impossible or len(self.folds) == retried:
                        break
                    self.impossible, retried = {}, len(self.folds)  # they may be possible by now
                types = infer_types(self.model)
            self._drop_what_bodies_left()
            known = {node for node, _, _ in (*self.refusals, *self.impossible.values())}
            self.refusals.extend(found for found in self.unfit if found[0] not in known)
        else:
            reason = f"opset {self.opset} is older than {OLDEST_OPSET}"
            self.refusals = [(n.name, n.op_type, reason) for n in self.model.graph.node]
        if lacks_types(self.model, concrete):
            concrete = concrete_types(self.model, assumed, infer_types(self.model))
        report = Report(
            folds=tuple(self.folds),
            refusals=tuple(self._refused()),
            before=before,
            after=count(self.model, concrete),
            assumed=assumed,
            flushed=self.flushed,
        )
        return OptimizeResult(self.model, report, self.source)

    def _refused(self) -> Iterator[Refused]:
        """The refusals of the last pass; stretches by what they were before others were folded."""
        probed: dict[str, str] = {}
        for node in self.model.graph.node:
            reason = next(filter(None, map(self.no_convolution.get, node.output)), None)
            if reason is not None:
                probed[node.name or node.output[0]] = reason
                yield Refused(node.name or node.output[0], node.op_type, reason)
        for refusal in (*self.refusals, *self.impossible.values()):
            if refusal[0] not in probed:
                yield Refused(*refusal)

    def _check_options(self) -> None:
        rules = {*RULES, *OPERATORS, *STEPS}
        unknown = sorted(self.skip - rules)
        if unknown:
            raise ModelError(f"no rule is named {unknown[0]!r}; rules: {', '.join(sorted(rules))}")
        names = {name for node in self.model.graph.node for name in node.output}
        missing = sorted(self.keep - names)
        if missing:
            raise ModelError(f"no node makes a tensor named {missing[0]!r}")

    def _normalized(self, types: dict[str, TensorType]) -> dict[str, TensorType]:
        """Cleans up until nothing changes: a constant found may make a size known, and so on."""
        for _ in range(_CLEAN_UPS):
            changed = [normalize(graph, self.model, self.skip) for graph in self._graphs(types)]
            if not any(changed):
                break
            types = infer_types(self.model)
        return types

    def _pass(self, types: dict[str, TensorType]) -> bool:
        """Folds every graph of the model once; True when another pass may find more."""
        self.refusals, self.unfit = [], []
        again = False
        repeated = _repeated(self.model.graph)
        for graph in self._graphs(types):
            found = completed_types(graph)
            own = {name: kind for name, kind in found.items() if name in repeated}
            types.update((name, kind) for name, kind in found.items() if name not in own)
            if own:
                graph.types = {**types, **own}
            outcomes = self._rewritten(graph, REWRITES)
            probes = Search(graph, self._settings, self.skip, self.effort).run()
            for name, refusal in probes.refusals.items():
                self.no_convolution.setdefault(name, refusal.reason)
            outcome = fold_graph(
                graph, probes, self.skip, self.impossible, node_price=self.node_price
            )
            for made in (*probes.found, *(fold.target for fold in outcome.folds)):
                self.no_convolution.pop(made, None)
            outcomes.append(outcome)
            if not any(made_here.folds or made_here.impossible for made_here in outcomes):
                outcomes += self._finished(graph)
            for made_here in outcomes:
                self.folds.extend(made_here.folds)
                self.refusals.extend(made_here.refusals)
                again |= bool(made_here.folds or made_here.impossible)
            self.impossible |= outcome.impossible
        return again

    def _finished(self, graph: Graph) -> list[Outcome]:
        """What is done to a graph with nothing left to fold, up to the first that changes it."""
        self._flush(graph)
        outcomes: list[Outcome] = []
        for name, rewrite in self.last.items():
            outcomes += self._rewritten(graph, {name: rewrite})
            if outcomes and outcomes[-1].folds:
                break
        return outcomes

    def _rewritten(self, graph: Graph, rewrites: Mapping[str, Rewrite]) -> list[Outcome]:
        """What rewrites did to a graph, one after the other."""
        outcomes = []
        for name, rewrite in rewrites.items():
            if name not in self.skip:
                outcome = rewrite(graph, self.skip)
                outcome.folds = [replace(fold, step=name) for fold in outcome.folds]
                outcomes.append(outcome)
        return outcomes

    def _settings(self) -> list[Setting]:
        return model_settings(self.model)

    def _flush(self, graph: Graph) -> None:
        outcome = flush_denormals(graph)
        self.flushed |= outcome.counts
        self.unfit.extend(outcome.refusals)

    def _drop_what_bodies_left(self) -> None:
        """Drops initializers of the main graph that only nodes in bodies read, now folded."""
        main = next(self._graphs({}))
        if main.captured:
            main.commit(prune=True)

    def _graphs(self, types: dict[str, TensorType]) -> Iterator[Graph]:
        """The model's graph, then the bodies in it, each after the one around it is done with."""
        main = Graph(
            self.model.graph,
            self.opset,
            self.model.ir_version,
            load=self.source.load,
            types=types,
            keep=self.keep | trained_names(self.model),
            reserved=self.names,
        )
        pending = [main]
        while pending:
            graph = pending.pop()
            yield graph
            for node in graph.nodes:
                for body in bodies(node):
                    pending.append(
                        Graph(
                            body,
                            self.opset,
                            self.model.ir_version,
                            load=self.source.load,
                            outer=graph,
                            types=types,
                        )
                    )
