"""Carrying a plan out: every fold is lowered, certified, rounded once and put into the graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxfuse.affine import AffineConv, Refusal, large_arrays_freed
from onnxfuse.between import Between, between
from onnxfuse.certify import Certificate, certify
from onnxfuse.copies import unprofitable, write_once
from onnxfuse.graph import Graph
from onnxfuse.lower import Lowered, lower
from onnxfuse.options import Component, components
from onnxfuse.plan import Option, lean_cover
from onnxfuse.probe import Probes
from onnxfuse.proposal import Proposal
from onnxfuse.regions import Regions, find_regions
from onnxfuse.rounding import round_constants
from onnxfuse.sums import group_branches
from onnxfuse.wiring import Wiring, wiring

FOLDS = "folds"
"""What users call all folds together."""


@dataclass(frozen=True)
class Fold:
    """One fold that was made.

    Attributes:
        target: The tensor that is now computed directly.
        source: The tensor that it is computed from.
        replaced: (name or first output, operator) of each node between them.
        nodes: Operators in their place; none when the target was the source.
        before: How each of the replaced was wired, in the same order.
        after: How each of those in their place is.
        formula: The map, in words and shapes.
        certificate: The proof.
        flushed: How many subnormal numbers of the folded weight were set to zero.
        step: Which step made it: the folds, or one of the rewrites.
    """

    target: str
    source: str
    replaced: tuple[tuple[str, str], ...]
    nodes: tuple[str, ...]
    before: tuple[Wiring, ...] = field(repr=False)
    after: tuple[Wiring, ...] = field(repr=False)
    formula: str
    certificate: Certificate
    flushed: int = 0
    step: str = FOLDS


@dataclass
class Outcome:
    """What happened to one graph.

    Attributes:
        folds: In topological order.
        refusals: (node, operator, reason) for nodes that stayed.
        impossible: Folds, by (target, source), that were planned and then refused; with the same.
    """

    folds: list[Fold] = field(default_factory=list)
    refusals: list[tuple[str, str, str]] = field(default_factory=list)
    impossible: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)


def fold_graph(
    graph: Graph,
    probes: Probes,
    skip: frozenset[str],
    impossible: Collection[tuple[str, str]],
    *,
    node_price: int = 0,
) -> Outcome:
    """Plans and makes the folds of one graph, and commits them.

    Args:
        graph: The graph; changed.
        probes: What probing it found.
        skip: Operators whose lift rule is left out.
        impossible: (target, source) of folds that were refused before.
        node_price: Nanoseconds that every node costs besides what its work does.

    Raises:
        CertificateError: If a fold does not agree with what it replaces.
    """
    if FOLDS in skip:
        return Outcome()
    regions = find_regions(graph, skip, probes)
    made = group_branches(graph, regions)
    if made:
        graph.types = {**graph.types, **{name: graph.type(like) for name, like in made.items()}}
        graph.commit()
        regions = find_regions(graph, skip, probes)
    outcome = Outcome()
    _make(graph, _proposals(regions, impossible, outcome, node_price), outcome)
    _collect_refusals(regions, outcome)
    graph.commit(prune=True)
    return outcome


def _proposals(
    regions: Regions,
    impossible: Collection[tuple[str, str]],
    outcome: Outcome,
    node_price: int,
) -> list[Proposal]:
    """The folds of the plan, those refused left out."""
    proposals: list[Proposal] = []
    for component in components(regions, impossible):
        taken = lean_cover(
            component.order, component.options, component.required, node_price=node_price
        )
        for name in component.order:
            option = taken.get(name)
            if option is None:
                continue
            if option.choice < 0:
                _report_cost(regions, name, component, outcome)
                continue
            with np.errstate(all="ignore"):
                proposal = _propose(regions, name, option, component, outcome)
            if proposal is not None:
                proposals.append(proposal)
    return proposals


def _propose(
    regions: Regions, target: str, option: Option, component: Component, outcome: Outcome
) -> Proposal | None:
    """The fold of an option; None where it is refused, or stands there already."""
    graph, candidate = regions.graph, regions.candidates[target][option.choice]
    source = candidate.source
    replaced = between(regions, target, source, candidate.view)
    with large_arrays_freed():
        lowered = lower(graph, candidate.term, candidate.view, source, target, candidate.turned)
        rounded = round_constants(lowered, graph.type(target).elem_type)
    if not isinstance(rounded, Refusal) and _brings_conv(graph, target, replaced, lowered):
        rounded = Refusal("ONNX Runtime has no Conv in float64, and there was none before")
    if not isinstance(rounded, Refusal) and rounded.constants and not graph.takes_initializers:
        rounded = Refusal("a body takes no new weights before IR version 4")
    if isinstance(rounded, Refusal):
        _refuse(graph, target, source, rounded, outcome)
        return None
    if [node.op_type for node in replaced.nodes] == [node.op_type for node in lowered.nodes]:
        return None
    certificate = certify(graph, replaced, lowered, candidate, target)
    if isinstance(certificate, Refusal):
        _refuse(graph, target, source, certificate, outcome)
        return None
    return Proposal(
        target=target,
        source=source,
        replaced=replaced.nodes,
        nodes=lowered.nodes,
        constants=rounded.constants,
        formula=describe(lowered),
        certificate=certificate,
        flushed=rounded.flushed,
        apart=_apart(component, replaced),
        spent=option.cost,
    )


def _make(graph: Graph, proposals: Sequence[Proposal], outcome: Outcome) -> None:
    """Makes the folds, but for those by which the file would grow."""
    constants = write_once(graph, proposals)
    growing = unprofitable(graph, proposals, constants)
    for made in proposals:
        target, source = made.target, made.source
        if target in growing:
            _refuse(graph, target, source, Refusal(growing[target]), outcome)
            continue
        if not made.nodes and graph.can_alias(target, source):
            graph.alias(target, source)
        else:
            graph.replace(target, made.nodes or _identity(graph, source, target))
        for name in made.reads():
            if name in constants:
                graph.add_constant(name, constants[name])
        outcome.folds.append(
            Fold(
                target=target,
                source=source,
                replaced=tuple(
                    (node.name or node.output[0], node.op_type) for node in made.replaced
                ),
                nodes=tuple(node.op_type for node in made.nodes),
                before=tuple(wiring(graph, node) for node in made.replaced),
                after=tuple(wiring(graph, node) for node in made.nodes),
                formula=made.formula,
                certificate=made.certificate,
                flushed=made.flushed,
            )
        )


def _brings_conv(graph: Graph, target: str, replaced: Between, lowered: Lowered) -> bool:
    """True when a Conv in float64 would take the place of nodes without one."""
    before = {node.op_type for node in replaced.nodes}
    after = {node.op_type for node in lowered.nodes}
    double = graph.type(target).elem_type == onnx.TensorProto.DOUBLE
    return double and "Conv" in after and "Conv" not in before


def _refuse(graph: Graph, target: str, source: str, refusal: Refusal, outcome: Outcome) -> None:
    last = graph.nodes[graph.producers[target]]
    outcome.impossible[target, source] = (last.name or target, last.op_type, refusal.reason)


def _report_cost(regions: Regions, name: str, component: Component, outcome: Outcome) -> None:
    """Says why a tensor keeps its own node where it could have been folded."""
    _, *folds = component.options[name]
    if not folds:
        return
    graph, cheapest = regions.graph, min(folds, key=lambda option: option.cost)
    node = graph.nodes[graph.producers[name]]
    candidate = regions.candidates[name][cheapest.choice]
    source = candidate.source
    apart = _apart(component, between(regions, name, source, candidate.view))
    reason = "needed for other tensors too" if apart > cheapest.cost else "cheaper as it is"
    reason += (
        f" (one node from {source!r}: {cheapest.cost / 1000:.1f} us by the cost model; "
        f"the nodes between: {apart / 1000:.1f} us)"
    )
    outcome.refusals.append((node.name or name, node.op_type, reason))


def _apart(component: Component, replaced: Between) -> int:
    """What the nodes between two tensors cost, in nanoseconds."""
    options = component.options
    made = (output for node in replaced.nodes for output in node.output)
    return sum(options[output][0].cost for output in made if output in options)


def _identity(graph: Graph, source: str, target: str) -> list[onnx.NodeProto]:
    name = graph.unique_name(f"{target}/Identity")
    return [onnx.helper.make_node("Identity", [source], [target], name=name)]


def describe(lowered: Lowered) -> str:
    """The map in one line."""
    term = lowered.term
    if not lowered.nodes:
        return "y = x"
    shape = f"{term.in_channels} -> {term.out_channels}"
    if not isinstance(term, AffineConv):
        return f"{term.op_type} {shape}"
    if term.is_channelwise:
        return f"y = scale * x + shift, {term.out_channels} channels"
    if not term.kernel:
        return f"y = W x + b, {shape}"
    parts = ["x".join(map(str, term.kernel)), shape]
    if term.groups > 1:
        parts.append(f"groups {term.groups}")
    if set(term.strides) != {1}:
        parts.append(f"stride {'x'.join(map(str, term.strides))}")
    if set(term.dilations) != {1}:
        parts.append(f"dilation {'x'.join(map(str, term.dilations))}")
    return "y = W * x + b, " + ", ".join(parts)


def _collect_refusals(regions: Regions, outcome: Outcome) -> None:
    replaced = {name for fold in outcome.folds for name, _ in fold.replaced}
    for index, refusal in sorted(regions.refusals.items()):
        node = regions.graph.nodes[index]
        label = node.name or node.output[0]
        if label not in replaced:
            outcome.refusals.append((label, node.op_type, refusal.reason))
