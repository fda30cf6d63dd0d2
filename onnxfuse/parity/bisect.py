"""The first tensor where two models part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnxfuse.fold import Fold
from onnxfuse.graph import bodies, names_read
from onnxfuse.parity.evaluator import Evaluator, Value
from onnxfuse.parity.interface import Interface
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
    """Two models, and what is known of their tensors.

    Attributes:
        first: The model that is right.
        second: The model in question.
        pairs: Name in the second to name in the first.
        interface: Their inputs and outputs.
        folds: The folds that the second came about by, if it was folded here.
    """

    first: Evaluator
    second: Evaluator
    pairs: Mapping[str, str]
    interface: Interface
    folds: Sequence[Fold] = ()

    def in_float64(self, compared: Compared, inputs: str) -> Divergence | None:
        """Where the two part in float64; None where they do not.

        That is the first of those tensors from which a wrong output or a small error comes, no
        tensor in between being right again.
        """
        outputs = zip(self.interface.outputs, compared.outputs, strict=True)
        wrong = {theirs: off for (_, theirs), off in outputs if off.ratio > 1}
        known = {**compared.other, **compared.apart, **wrong}
        reached = self._back_from({*wrong, *compared.apart}, known)
        for name in self._in_order(reached):
            if name in known:
                return self._divergence(name, known[name], inputs, "float64")
        return None

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
        theirs = [
            name
            for name in self._in_order(self.pairs)
            if name in runner.second.made and self.pairs[name] in runner.first.made
        ]
        truth: dict[str, Value] = {}
        wanted = set(self.pairs.values())

        def keep(name: str, value: Value) -> None:
            if name in wanted:
                truth[name] = value

        rounded_outputs(self.first, feeds, unit, keep)
        ours = [self.pairs[name] for name in theirs]
        left = runner.first.run(feeds, ours)
        right = runner.second.run(self.interface.renamed(feeds), theirs)
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

    def _back_from(self, starts: Iterable[str], known: Mapping[str, Excess]) -> set[str]:
        """Tensors of the second model that lead to these, up to those that are right."""
        makers = {out: node for node in self.second.graph.node for out in node.output if out}
        reached: set[str] = set()
        pending = list(starts)
        while pending:
            name = pending.pop()
            right = name in self.pairs and name not in known
            if name in reached or right or name not in makers:
                continue
            reached.add(name)
            pending.extend(_read(makers[name]))
        return reached

    def _in_order(self, names: Iterable[str]) -> list[str]:
        wanted = set(names)
        return [name for node in self.second.graph.node for name in node.output if name in wanted]

    def _divergence(self, name: str, off: Excess, inputs: str, provider: str) -> Divergence:
        maker = next(node for node in self.second.graph.node if name in node.output)
        fold = next((fold for fold in self.folds if fold.target == name), None)
        return Divergence(
            tensor=name,
            made_by=f"{maker.op_type} {maker.name or name!r}",
            replaced=fold.replaced if fold else self._replaced(name, maker),
            fold=fold,
            channel=off.channel,
            error=off.ratio,
            inputs=inputs,
            provider=provider,
            counterpart=self._counterpart(name),
        )

    def _counterpart(self, name: str) -> str:
        outputs = {theirs: ours for ours, theirs in self.interface.outputs}
        return self.pairs.get(name) or outputs.get(name, "")

    def _replaced(self, name: str, maker: onnx.NodeProto) -> tuple[tuple[str, str], ...]:
        """The first model's nodes between a node's inputs and its output."""
        target = self._counterpart(name)
        ends = {self.pairs[read] for read in maker.input if read in self.pairs}
        makers = {out: node for node in self.first.graph.node for out in node.output if out}
        found: set[str] = set()
        pending = [target] if target else []
        while pending:
            tensor = pending.pop()
            if tensor in makers and tensor not in found and tensor not in ends:
                found.add(tensor)
                pending.extend(_read(makers[tensor]))
        return tuple(
            (node.name or node.output[0], node.op_type)
            for node in self.first.graph.node
            if found.intersection(node.output)
        )


def _read(node: onnx.NodeProto) -> list[str]:
    return [*node.input, *(name for body in bodies(node) for name in names_read(body))]
