"""Channels that carry nothing are left out.

    Conv 384 -> 768, GELU, Conv 768 -> 384  ->  Conv 384 -> 288, GELU, Conv 288 -> 384

Weight decay and pruning drive whole filters to zero: their channel is the bias, whatever comes in,
and the activation of the bias behind an activation. The next layer multiplies it by a column of its
weight: that is a constant, which its bias takes in. A channel that meets zeros alone in the next
layer is not needed either, whatever it is.

What nodes do with channels is in `channel_nodes`, which channels are constant in `channel_values`,
which may go and how many do in `channel_needs`.

1. New biases fit into the model's type.

Tried when there is nothing left to fold, and denormal weights are zeros.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.certify import Certificate
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import Graph
from onnxfuse.rewrites.channel_making import Cut, Cuts, Maker, put_in
from onnxfuse.rewrites.channel_needs import Removal, plan
from onnxfuse.rewrites.channel_proof import Step, certify
from onnxfuse.wiring import wiring


def remove_channels(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Leaves out channels that are constant, or that nobody needs, in whole blocks.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If what is left does not agree with what was there.
    """
    outcome = Outcome()
    if graph.has_dead_nodes():
        graph.commit(prune=True)
    found = plan(graph, skip) if graph.takes_initializers else None
    if found is None:
        return outcome
    maker = Maker(graph, found)
    cuts: dict[str, Cut] = {}
    made: dict[int, list[onnx.NodeProto]] = {}
    for removal in found.removals:
        own = maker.cuts(removal)
        old = [maker.nodes(index, cuts) for index in removal.nodes]
        cuts |= own
        new = [maker.nodes(index, cuts) for index in removal.nodes]
        steps = list(map(Step, removal.nodes, old, new))
        certificate = _certified(maker, steps, own)
        if isinstance(certificate, Refusal):
            node = graph.nodes[removal.nodes[0]]
            refused = (node.name or node.output[0], node.op_type, certificate.reason)
            outcome.refusals.append(refused)
            for name in own:
                del cuts[name]
            continue
        outcome.folds.append(_fold(graph, removal, steps, certificate))
        made |= {step.index: list(step.new) for step in steps}
    put_in(graph, made, cuts, found)
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _certified(maker: Maker, steps: list[Step], own: Cuts) -> Certificate | Refusal:
    """The proof, where new biases are numbers of the model's type."""
    for name in (name for step in steps for node in step.new for name in node.input):
        if name in maker.exact and not np.all(np.isfinite(np.asarray(maker.graph.constant(name)))):
            dtype = np.asarray(maker.graph.constant(name)).dtype
            return Refusal(f"a bias that takes in constant channels overflows {dtype}")
    return certify(maker, steps, own)


def _fold(graph: Graph, removal: Removal, steps: list[Step], certificate: Certificate) -> Fold:
    old = [node for step in steps for node in step.old]
    new = [node for step in steps for node in step.new]
    made = {name for node in old for name in node.output}
    read = [name for node in old for name in node.input]
    return Fold(
        target=str(old[-1].output[0]),
        source=next(n for n in read if n and n not in made and not graph.is_constant(n)),
        nodes=tuple(node.op_type for node in new),
        replaced=tuple((node.name or node.output[0], node.op_type) for node in old),
        before=tuple(wiring(graph, node) for node in old),
        after=tuple(wiring(graph, node) for node in new),
        formula=f"{removal.idle} of {removal.count} channels carry nothing: {removal.left} remain",
        certificate=certificate,
    )
