"""Puts one convolution in the place of several, with the proof of each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.certify import Certificate
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.messages import operator
from onnxfuse.rewrites.images import IMAGE, image_probe
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in

_SPLIT_BY_INPUT = 13  # the first opset in which Split takes the sizes of parts as a tensor


@dataclass(frozen=True)
class Family:
    """Convolutions over one tensor.

    Attributes:
        chains: For each, the Conv and what works on its channels alone, by index, in order; the
            same nodes in each, but for constants.
    """

    chains: tuple[tuple[int, ...], ...]

    def targets(self, graph: Graph) -> list[str]:
        """The last tensor of each chain."""
        return [graph.nodes[chain[-1]].output[0] for chain in self.chains]


@dataclass
class Rows:
    """Constants of several channels put together: once, however many nodes of a graph read them.

    Attributes:
        graph: The graph.
        values: What they are together, by the names they got.
    """

    graph: Graph
    values: dict[str, Array] = field(default_factory=dict)
    _names: dict[tuple[tuple[str, ...], tuple[int, ...], bool], str] = field(default_factory=dict)

    def of(self, names: Sequence[str], counts: Sequence[int], *, of_conv: bool) -> str:
        """The name of constants as one, with rows of each.

        Args:
            names: The constants, or "" where one is left out and stands for zeros.
            counts: How many channels each is for.
            of_conv: Whether they are weights or biases of Convs; else they spread over the pixels.
        """
        if not any(names):
            return ""
        if not of_conv and (name := self._one_number(names)):
            return name
        key = (tuple(names), tuple(counts), of_conv)
        if key not in self._names:
            new = self._names[key] = self.graph.unique_name(f"{next(filter(None, names))}/merged")
            self.values[new] = np.concatenate(
                [
                    self._rows(name, count, of_conv, like=next(filter(None, names)))
                    for name, count in zip(names, counts, strict=True)
                ]
            )
        return self._names[key]

    def _one_number(self, names: Sequence[str]) -> str:
        """A constant that is the same single number for all."""
        values = [np.asarray(self.graph.constant(name)) for name in names]
        same = all(value.tobytes() == values[0].tobytes() for value in values)
        return names[0] if same and values[0].size == 1 else ""

    def _rows(self, name: str, count: int, of_conv: bool, like: str) -> Array:
        if not name:
            return np.zeros(count, np.asarray(self.graph.constant(like)).dtype)
        value = np.asarray(self.graph.constant(name))
        if of_conv:
            return value
        return np.broadcast_to(value.reshape(-1, 1, 1), (count, 1, 1))


def replaced(graph: Graph, family: Family, rows: Rows) -> Fold | Refusal:
    """Puts one convolution in the place of a family.

    Args:
        graph: The graph; changed, not committed.
        family: The convolutions.
        rows: Constants that were put together before; those of this one are added.

    Raises:
        CertificateError: If a part does not agree with the nodes it replaces.
    """
    first = graph.nodes[family.chains[0][0]]
    shapes = [graph.constant_shape(graph.nodes[chain[0]].input[1]) or () for chain in family.chains]
    probe = image_probe(graph, family.chains[0], shapes[0])
    if isinstance(probe, Refusal):
        return probe
    counts = [shape[0] for shape in shapes]
    nodes = _nodes(graph, family, counts, rows)
    gone = tuple(sorted(index for chain in family.chains for index in chain))
    made_first = min(family.chains, key=lambda chain: chain[-1])
    replacement = Replacement(
        kind="one Conv for several",
        formula=f"y = {'act(W * x + b)' if len(made_first) > 1 else 'W * x + b'}, "
        f"{' + '.join(map(str, counts))} channels, cut into parts",
        source=first.input[0],
        target=graph.nodes[made_first[-1]].output[0],
        before=gone,
        gone=gone,
        nodes=nodes,
        constants={n: rows.values[n] for node in nodes for n in node.input if n in rows.values},
    )
    errors, proved = [], dict[tuple[int, ...], None]()
    for chain, target in zip(family.chains, family.targets(graph), strict=True):
        part = replace(replacement, target=target, before=chain)
        certificate = certify_equal(graph, part, [probe])
        if isinstance(certificate, Refusal):
            return certificate
        errors.append(certificate.error)
        proved |= dict.fromkeys(certificate.shapes)
    graph.types = {**graph.types, **_types(graph, family, sum(counts), nodes)}
    fold = put_in(graph, replacement, Certificate(max(errors), tuple(proved)))
    for target in family.targets(graph):
        if target != replacement.target:
            graph.replace(target, ())  # the Split makes it
    return fold


def _nodes(graph: Graph, family: Family, counts: Sequence[int], rows: Rows) -> list[onnx.NodeProto]:
    """One chain for all, and the Split behind it."""
    targets = family.targets(graph)
    made: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for alike in zip(*family.chains, strict=True):
        olds = [graph.nodes[index] for index in alike]
        node = onnx.NodeProto()
        node.CopyFrom(olds[0])
        node.name = graph.unique_name(f"{targets[0]}/{node.op_type}")
        node.input[:] = _inputs(olds, made, counts, rows)
        node.output[0] = made[olds[0].output[0]] = node.name
        if operator(node) == "Conv":
            others = [held for held in node.attribute if held.name != "group"]
            group = onnx.helper.make_attribute("group", sum(counts) if nodes else 1)
            del node.attribute[:]
            node.attribute.extend([*others, group])
        nodes.append(node)
    return [*nodes, _split(graph, nodes[-1].output[0], targets, counts, rows)]


def _split(
    graph: Graph, whole: str, targets: Sequence[str], counts: Sequence[int], rows: Rows
) -> onnx.NodeProto:
    """The node that cuts a tensor into parts of some channels each."""
    inputs = [whole]
    if graph.opset >= _SPLIT_BY_INPUT:
        inputs.append(graph.unique_name(f"{whole}/sizes"))
        rows.values[inputs[1]] = np.array(counts, np.int64)
    node = onnx.helper.make_node("Split", inputs, targets, axis=IMAGE.axis)
    node.name = graph.unique_name(f"{targets[0]}/Split")
    if graph.opset < _SPLIT_BY_INPUT:
        node.attribute.append(onnx.helper.make_attribute("split", list(counts)))
    return node


def _inputs(
    olds: Sequence[onnx.NodeProto], made: dict[str, str], counts: Sequence[int], rows: Rows
) -> list[str]:
    """What one node reads in the place of several."""
    of_conv = operator(olds[0]) == "Conv"
    places = max(len(node.input) for node in olds)
    given = [[*node.input, *[""] * (places - len(node.input))] for node in olds]
    read = []
    for names in zip(*given, strict=True):
        if names[0] in made:
            read.append(made[names[0]])
        elif of_conv and not read:
            read.append(names[0])  # x
        else:
            read.append(rows.of(names, counts, of_conv=of_conv))
    while read and not read[-1]:
        read.pop()
    return read


def _types(
    graph: Graph, family: Family, channels: int, nodes: Sequence[onnx.NodeProto]
) -> dict[str, TensorType]:
    """What is known of the tensors that the nodes of all make."""
    types = {}
    for index, new in zip(family.chains[0], nodes[:-1], strict=True):
        kind = graph.type(graph.nodes[index].output[0])
        batch, _, *size = kind.shape or (None,) * IMAGE.rank
        types[new.output[0]] = TensorType(kind.elem_type, (batch, channels, *size))
    return types
