"""The nodes that a fold replaces, and what stands for them in its certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxfuse.affine import Array
from onnxfuse.lift import View
from onnxfuse.probe import Probed
from onnxfuse.regions import Regions


@dataclass(frozen=True)
class Between:
    """What lies between two tensors.

    Attributes:
        nodes: The nodes, in topological order.
        evaluable: The same, each probed stretch replaced by nodes that were proved to be equal.
        constants: The constants of those, in float64.
        probed: The probed stretches.
    """

    nodes: tuple[onnx.NodeProto, ...]
    evaluable: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    probed: tuple[Probed, ...]


def between(regions: Regions, target: str, source: str, view: View) -> Between:
    """The nodes between source and target, both read in `view`; probed stretches as a whole."""
    graph = regions.graph
    plain: set[int] = set()
    stretches: dict[str, Probed] = {}  # by target: another output of its node may be needed too
    pending = [target]
    while pending:
        name = pending.pop()
        index = graph.producers.get(name)
        if name == source or index is None or index in plain or name in stretches:
            continue
        probed = regions.probed.get(name)
        if probed is not None and probed.view == view and not _makes(probed, source):
            stretches[name] = probed
            pending.append(probed.stretch.source)
        else:
            plain.add(index)
            pending.extend(graph.data(index))
    nodes = set(plain)
    for probed in stretches.values():
        nodes.update(graph.producers[node.output[0]] for node in probed.stretch.affine)
    made: list[tuple[int, Sequence[onnx.NodeProto]]]
    made = [(index, (graph.nodes[index],)) for index in plain]
    made += [(graph.producers[name], _stand_in(probed)) for name, probed in stretches.items()]
    evaluable = [node for _, nodes_made in sorted(made, key=lambda m: m[0]) for node in nodes_made]
    return Between(
        nodes=tuple(graph.nodes[index] for index in sorted(nodes)),
        evaluable=tuple(evaluable),
        constants={
            name: value
            for probed in stretches.values()
            for name, value in probed.proof.stand_in.constants.items()
        },
        probed=tuple(stretches.values()),
    )


def _makes(probed: Probed, name: str) -> bool:
    """True for a tensor within a stretch."""
    return any(name in node.output for node in probed.stretch.affine)


def _stand_in(probed: Probed) -> tuple[onnx.NodeProto, ...]:
    stretch, nodes = probed.stretch, probed.proof.stand_in.nodes
    return nodes or (onnx.helper.make_node("Identity", [stretch.source], [stretch.target]),)
