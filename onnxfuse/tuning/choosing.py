"""`tune`: a model optimized in several ways, and of each region the fastest of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from onnxfuse import io
from onnxfuse.benchmark.cases import made_cases
from onnxfuse.benchmark.machine import describe
from onnxfuse.benchmark.settings import Settings
from onnxfuse.fold import FOLDS, Fold
from onnxfuse.graph import Array, Graph
from onnxfuse.messages import trained_names
from onnxfuse.pipeline import STEPS, TRIALS, OptimizeResult, names_given, optimize_with
from onnxfuse.report.counts import concrete_types, count
from onnxfuse.report.report import Tuned
from onnxfuse.runtime import Feeds, Loaded, load_model, sizes_of_shapes
from onnxfuse.runtime.providers import require_provider, short_name
from onnxfuse.shapes import default_opset, infer_types
from onnxfuse.tuning.cache import Cache
from onnxfuse.tuning.extracting import Extract, around, model_of
from onnxfuse.tuning.measuring import best, ratios
from onnxfuse.tuning.regions import Region, is_divisible, outline, regions, shared_tensors
from onnxfuse.tuning.stitching import stitched

AS_IT_WAS = "as it was"
Progress = Callable[[str, int, int | None], None]


def tune(
    model: Any,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    progress: Progress | None = None,
) -> OptimizeResult:
    """Optimizes a model, and takes of each region the way that is the fastest on this machine.

    The ways are `optimize`'s own, the same without one of its steps or with what pays on some
    machines only, and the region as it was. Each is measured with a few nodes around it, in turn
    with the first, at the sizes given; another one is taken where a 95% interval, twice, says that
    it is faster. Ratios are kept for the next time.

    Args:
        model: What `optimize` takes.
        provider: Execution provider to measure on, such as "cpu" or "cuda".
        threads: Threads within an operator; None for ONNX Runtime's choice.
        sizes: Extents of symbolic dimensions to measure at; what is not given is chosen as in
            `bench`. The model runs at every size as before.
        shapes: The same by shapes of inputs, by name; "" is the first one's.
        skip: As for `optimize`.
        keep: As for `optimize`.
        progress: Told what is being done, how much of it is done, and of how much if that is known.

    Returns:
        The model and its report; `report.tuned` says what differs from `optimize`'s.

    Raises:
        ModelError: The model cannot be used, or not measured on this provider.
        RunError: ONNX Runtime cannot run it.
        CertificateError: As `optimize`.
    """
    tell = progress or (lambda step, done, total: None)
    settings = Settings(require_provider(provider), threads=threads)
    skip, keep = names_given(skip, "skip"), names_given(keep, "keep")
    source = io.read(model)

    given = model if source.external else source.model

    def optimized(*more: str, trial: str | None = None) -> OptimizeResult:
        return optimize_with(trial, given, skip=[*skip, *more], keep=keep)

    names = frozenset(name for node in source.model.graph.node for name in node.output)
    tell("optimizing", 0, None)
    ways = {"": optimized()}
    steps = sorted({fold.step for fold in ways[""].report.folds})
    for step in steps if len(steps) > 1 else ():
        if step == FOLDS:
            continue  # rewrites make room for folds, and pay by them
        tell(f"optimizing without {step}", 0, None)
        ways[f"without {step}"] = optimized(step)
    for trial in TRIALS:
        tell(f"optimizing with {trial}", 0, None)
        ways[f"with {trial}"] = optimized(trial=trial)
    if not any(way.report.folds for way in ways.values()):
        return ways[""]
    ways[AS_IT_WAS] = optimized(*STEPS)
    with load_model(ways[""].source, source.name) as loaded:
        settled = {**sizes_of_shapes(loaded.inputs, shapes or {}), **(sizes or {})}
        return Tuning(ways, names, keep, settings, tell).result(loaded, settled)


@dataclass(frozen=True)
class Choice:
    """What is taken in the place of a region."""

    region: Region
    way: int
    ratio: float


class Tuning:
    """The ways of one model, and where they differ."""

    def __init__(
        self,
        ways: Mapping[str, OptimizeResult],
        names: frozenset[str],
        keep: frozenset[str],
        settings: Settings,
        tell: Progress,
    ) -> None:
        """Cuts the ways into regions.

        Args:
            ways: The model as it was optimized, by way; the default first.
            names: The names of its tensors beforehand.
            keep: Tensors that stay.
            settings: How regions are loaded.
            tell: Told how far it is.
        """
        self.names, self.results = list(ways), list(ways.values())
        self.settings, self.tell = settings, tell
        self.graphs = [_graph(result, keep) for result in self.results]
        self.shared = shared_tensors(self.graphs) & names
        self.regions = regions(self.graphs, self.shared)

    def result(self, loaded: Loaded, sizes: Mapping[str, int]) -> OptimizeResult:
        """The tuned model; the first where another way is nowhere faster.

        Args:
            loaded: The first model.
            sizes: As for `tune`.
        """
        first = self.results[0]
        if not all(map(is_divisible, self.graphs)):
            return first
        todo = [region for region in self.regions if len(region.ways()) > 1]
        (case,) = made_cases(loaded, self.settings.open(loaded), sizes, ())
        extracts = [around(self.graphs[0], region) for region in todo]
        values = self._values(loaded, case.feeds, extracts)
        choices = self._choices(todo, extracts, values)
        return self.made(choices) if choices else first

    def _values(
        self, loaded: Loaded, feeds: Feeds, extracts: Sequence[Extract]
    ) -> Mapping[str, Array]:
        """The tensors that the regions start from."""
        needed = {name for extract in extracts for name in extract.inputs}
        graph = self.graphs[0]
        given = {
            tensor.name: graph.load(tensor)
            for tensor in graph.proto.initializer
            if tensor.name in graph.overridable
        } | feeds
        names = sorted(needed - given.keys())
        model = onnx.ModelProto()
        model.CopyFrom(loaded.source.model)
        known = {value.name for value in model.graph.output}
        new = [name for name in names if name not in known]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in new)
        with load_model(replace(loaded.source, model=model), loaded.name) as exposed:
            found = self.settings.open(exposed).run(feeds, names) if names else []
        return {**given, **dict(zip(names, found, strict=True))}

    def _choices(
        self, todo: Sequence[Region], extracts: Sequence[Extract], values: Mapping[str, Array]
    ) -> list[Choice]:
        cache = Cache(_machine(self.settings))
        found = []
        for number, (region, extract) in enumerate(zip(todo, extracts, strict=True)):
            self.tell("measuring regions", number, len(todo))
            ways = region.ways()
            feeds = {name: values[name] for name in extract.inputs}
            if not all(isinstance(value, np.ndarray) for value in feeds.values()):
                continue  # a sequence
            key = cache.key(self._key(region, extract, ways, feeds))
            measured = cache.get(key)
            if measured is None or len(measured) != len(ways):
                models = [
                    model_of(self.graphs, region, way, extract, feeds, self.results[0].model)
                    for way in ways
                ]
                measured = ratios(models, feeds, self.settings)
                cache.put(key, measured)
            index = best(measured)
            if index:
                found.append(Choice(region, ways[index], measured[index].value))
        cache.save()
        return found

    def _key(
        self, region: Region, extract: Extract, ways: Sequence[int], feeds: Mapping[str, Array]
    ) -> list[str]:
        first = self.graphs[0]
        nodes = [first.nodes[index] for index in (*extract.front, *extract.behind)]
        around_it = [outline(first, node) for node in nodes]
        shapes = [f"{value.dtype} {value.shape}" for value in feeds.values()]
        return [*(region.parts[way].shape for way in ways), *around_it, *shapes]

    def made(self, choices: Sequence[Choice]) -> OptimizeResult:
        """The first model, with other ways in some regions."""
        first = self.results[0]
        chosen = {choice.region: choice.way for choice in choices}
        model = stitched(first.model, self.graphs, chosen)
        if model is None:
            return first
        types = infer_types(model)
        report = replace(
            first.report,
            folds=self._folds(choices),
            after=count(model, concrete_types(model, first.report.assumed, types)),
            tuned=tuple(
                Tuned(choice.region.outputs, self.names[choice.way], choice.ratio)
                for choice in choices
            ),
        )
        return OptimizeResult(model, report, replace(first.source, model=model))

    def _folds(self, choices: Sequence[Choice]) -> tuple[Fold, ...]:
        """The folds by which the regions came about, each from the way that is taken there."""
        region_of = self._regions_by_tensor()
        taken = {id(choice.region): choice.way for choice in choices}
        return tuple(
            fold
            for way, result in enumerate(self.results)
            for fold in result.report.folds
            if taken.get(id(region_of.get(fold.target)), 0) == way
        )

    def _regions_by_tensor(self) -> dict[str, Region]:
        """The region of every tensor that is there in some way, or was on the way to it."""
        found = {
            name: region
            for region in self.regions
            for graph, part in zip(self.graphs, region.parts, strict=True)
            for index in part.nodes
            for name in graph.nodes[index].output
        }
        for result in self.results:
            for fold in reversed(result.report.folds):
                region = found.get(fold.target)
                if region is not None:
                    for wiring in fold.before:
                        for name in wiring.outputs:
                            found.setdefault(name, region)
        return found


def _graph(result: OptimizeResult, keep: frozenset[str]) -> Graph:
    model = result.model
    return Graph(
        model.graph,
        default_opset(model),
        model.ir_version,
        load=result.load,
        types=infer_types(model),
        keep=keep | trained_names(model),
    )


def _machine(settings: Settings) -> list[str]:
    found = describe(gpu=settings.provider != "CPUExecutionProvider")
    names = ("onnxruntime", "processor", "cores", "gpu")
    machine = [found.get(name, "") for name in names]
    return [*machine, short_name(settings.provider), str(settings.threads)]
