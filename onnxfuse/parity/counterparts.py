"""Two models, which tensor of the one is which of the other, and how far they are off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import onnx

from onnxfuse.messages import bodies, names_read
from onnxfuse.parity.evaluator import Evaluator
from onnxfuse.parity.interface import Interface
from onnxfuse.parity.meaning import Compared, compare
from onnxfuse.parity.spread import Excess
from onnxfuse.runtime import Feeds

_FURTHER = 1.1


@dataclass(frozen=True)
class Counterparts:
    """Two models whose tensors are paired.

    A pair is a guess: the tensors were nearly equal on some inputs, or have the same name. They may
    be so by chance, as a Conv behind which another small shift is left to do than in the first
    model, or tensors that an exporter has numbered. A pair is contradicted when what follows is
    right with the second's own value, or nearer to it, than with the first's.

    Attributes:
        first: The model that is right.
        second: The model in question.
        interface: Their inputs and outputs.
        pairs: Name in the second to name in the first.
        double: Whether they compute in float64.
    """

    first: Evaluator
    second: Evaluator
    interface: Interface
    pairs: Mapping[str, str]
    double: bool = False

    def compared(self, feeds: Feeds, mended: str = "") -> Compared:
        """Both in float64 for these inputs, by the first's names.

        Args:
            feeds: Inputs, by the first's names.
            mended: A tensor of the second that gets its counterpart's value though it differs.
        """
        return compare(
            self.first,
            self.second,
            self.interface,
            feeds,
            self.pairs,
            double=self.double,
            mended=mended,
        )

    def settled(self, compared: Compared, feeds: Feeds) -> tuple[Counterparts, Compared]:
        """The same without pairs that are contradicted, where the verdict hangs on them."""
        name = next(iter(compared.apart), "")
        wrong = any(output.ratio > 1 for output in compared.outputs)
        if wrong or not name or not self.is_contradicted(name, compared, feeds):
            return self, compared
        without = self.without(name)
        return without.settled(without.compared(feeds), feeds)

    def without(self, name: str) -> Counterparts:
        """The same without this pair, named as in the second model."""
        pairs = {theirs: ours for theirs, ours in self.pairs.items() if theirs != name}
        return replace(self, pairs=pairs)

    def of(self, name: str) -> str:
        """What a tensor of the second model is called in the first; empty where it is in none."""
        return self.pairs.get(name) or self.outputs.get(name, "")

    def is_contradicted(self, name: str, compared: Compared, feeds: Feeds) -> bool:
        """True when a tensor that comes next is wrong, or further off, once this one is right."""
        off, mended = self.off(compared), self.off(self.compared(feeds, name))
        return any(
            follower not in off or mended[follower].ratio > _FURTHER * off[follower].ratio
            for follower in self._next(name)
            if follower in mended
        )

    @property
    def outputs(self) -> dict[str, str]:
        """Name of an output of the second to its name in the first."""
        return {theirs: ours for ours, theirs in self.interface.outputs}

    def off(self, compared: Compared) -> dict[str, Excess]:
        """Tensors of the second model that are not what they should be."""
        outputs = zip(self.interface.outputs, compared.outputs, strict=True)
        wrong = {theirs: off for (_, theirs), off in outputs if off.ratio > 1}
        return {**compared.other, **compared.apart, **wrong}

    def _next(self, name: str) -> list[str]:
        """The nearest tensors behind this one that have a counterpart."""
        reached, found = {name}, []
        for node in self.second.graph.node:
            if reached.isdisjoint(read_by(node)):
                continue
            found += [made for made in node.output if self.of(made)]
            reached.update(made for made in node.output if made not in self.pairs)
        return found


def behind(
    graph: onnx.GraphProto, starts: Iterable[str], is_end: Callable[[str], bool]
) -> tuple[set[str], set[str]]:
    """The tensors that nodes compute these from, these included, and the ends that they stop at."""
    makers = {out: node for node in graph.node for out in node.output if out}
    found: set[str] = set()
    ends: set[str] = set()
    pending = [name for name in starts if name in makers]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        for read in read_by(makers[name]):
            if is_end(read):
                ends.add(read)
            elif read in makers:
                pending.append(read)
    return found, ends


def read_by(node: onnx.NodeProto) -> list[str]:
    """Names that a node or its bodies read."""
    return [*node.input, *(name for body in bodies(node) for name in names_read(body))]
