"""The first tensor where two models part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnxfuse.fold import Fold
from onnxfuse.parity.counterparts import Counterparts, behind
from onnxfuse.parity.evaluator import Value
from onnxfuse.parity.meaning import Compared
from onnxfuse.parity.result import Divergence
from onnxfuse.parity.runtime_noise import rounded_outputs
from onnxfuse.parity.spread import Excess
from onnxfuse.parity.truth import expected, leaves
from onnxfuse.parity.verdict import judge
from onnxfuse.runtime import Feeds, Loaded, Session, load_model


@dataclass(frozen=True)
class Exposed:
    """A model whose inner tensors can be asked for.

    Attributes:
        loaded: The model.
        open: Opens a session of a model, with the settings of the comparison.
    """

    loaded: Loaded
    open: Callable[[Loaded], Session]

    @property
    def made(self) -> set[str]:
        """Names of the tensors that its nodes make."""
        return {name for node in self.loaded.source.model.graph.node for name in node.output}

    def run(self, feeds: Feeds, names: Sequence[str]) -> list[Any]:
        """These tensors."""
        source = self.loaded.source
        model = onnx.ModelProto()
        model.CopyFrom(source.model)
        known = {value.name for value in model.graph.output}
        new = (name for name in dict.fromkeys(names) if name not in known)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in new)
        with load_model(replace(source, model=model), self.loaded.name) as loaded:
            return self.open(loaded).run(feeds, list(names))


@dataclass(frozen=True)
class Runner:
    """Two models on one provider."""

    first: Exposed
    second: Exposed


@dataclass(frozen=True)
class Bisection:
    """Where two models part.

    Attributes:
        both: The two models, and which of their tensors should be equal.
        folds: The folds that the second came about by, if it was folded here.
    """

    both: Counterparts
    folds: Sequence[Fold] = ()

    def in_float64(self, compared: Compared, feeds: Feeds, inputs: str) -> Divergence | None:
        """Where the two part in float64; None where they do not.

        That is the first of those tensors from which a wrong output or a small error comes, no
        tensor in between being right again. One whose pair is contradicted by what follows is
        passed over.

        Args:
            compared: What they are for these inputs.
            feeds: Inputs, by the first's names.
            inputs: The inputs in words.
        """
        both = self.both
        off = both.off(compared)
        starts = {name for name in off if name in compared.apart or name in both.outputs}
        right = both.pairs.keys() - off.keys()
        reached, _ = behind(both.second.graph, starts, right.__contains__)
        name = next((name for name in self._in_order(reached) if name in off), None)
        if name is None:
            return None
        if name in both.pairs and both.is_contradicted(name, compared, feeds):
            without = both.without(name)
            again = replace(self, both=without)
            return again.in_float64(without.compared(feeds), feeds, inputs)
        return self._divergence(name, off[name], inputs, "float64")

    def on_provider(
        self, runner: Runner, feeds: Feeds, unit: float, inputs: str, provider: str
    ) -> Divergence | None:
        """Where the two part on a provider although they mean the same; None where it is not seen.

        All paired tensors are made outputs of both models, which changes what the runtime fuses.

        Args:
            runner: Runs the two models there.
            feeds: Inputs on which they differ.
            unit: Roundoff of the floating type that they compute in.
            inputs: The inputs in words.
            provider: The provider, as users name it.
        """
        pairs = self.both.pairs
        theirs = [
            name
            for name in self._in_order(pairs)
            if name in runner.second.made and pairs[name] in runner.first.made
        ]
        truth: dict[str, Value] = {}
        wanted = set(pairs.values())

        def keep(name: str, value: Value) -> None:
            if name in wanted:
                truth[name] = value

        rounded_outputs(self.both.first, feeds, unit, keep)
        ours = [pairs[name] for name in theirs]
        left = runner.first.run(feeds, ours)
        right = runner.second.run(self.both.interface.renamed(feeds), theirs)
        for name, ours_name, a, b in zip(theirs, ours, left, right, strict=True):
            if ours_name not in truth:
                continue
            target = expected([name], [truth[ours_name]])
            parts = leaves(name, a), leaves(name, b)
            if any(part.keys() != target.keys() for part in parts):
                continue
            for label, leaf in target.items():
                verdict = judge(parts[0][label], parts[1][label], leaf)
                if verdict.reason:
                    ratio = (verdict.second - verdict.first) / (verdict.bound or 1.0)
                    return self._divergence(name, Excess(ratio), inputs, provider)
        return None

    def _in_order(self, names: Iterable[str]) -> list[str]:
        wanted = set(names)
        nodes = self.both.second.graph.node
        return [name for node in nodes for name in node.output if name in wanted]

    def _divergence(self, name: str, off: Excess, inputs: str, provider: str) -> Divergence:
        maker = next(node for node in self.both.second.graph.node if name in node.output)
        fold = next((fold for fold in self.folds if fold.target == name), None)
        return Divergence(
            tensor=name,
            made_by=f"{maker.op_type} {maker.name or name!r}",
            replaced=fold.replaced if fold else self._replaced(name),
            fold=fold,
            channel=off.channel,
            error=off.ratio,
            inputs=inputs,
            provider=provider,
            counterpart=self.both.of(name),
        )

    def _replaced(self, name: str) -> tuple[tuple[str, str], ...]:
        """The first model's nodes between this tensor and the paired ones that it comes from."""
        both, target = self.both, self.both.of(name)
        _, read = behind(both.second.graph, [name], both.pairs.__contains__)
        ends = {both.pairs[end] for end in read}
        found, _ = behind(both.first.graph, [target], ends.__contains__)
        return tuple(
            (node.name or node.output[0], node.op_type)
            for node in both.first.graph.node
            if found.intersection(node.output)
        )
