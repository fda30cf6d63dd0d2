"""A region as a model of its own, with a little of what is around it.

The nodes around matter: a runtime fuses an activation into the Conv in front of it, and keeps its
own layout between Convs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse.graph import Array, Graph
from onnxfuse.messages import all_names, renamed
from onnxfuse.tuning.regions import Part, Region, is_given

DEPTH = 2
"""How many nodes in front and behind are taken along."""


@dataclass(frozen=True)
class Extract:
    """What is measured of a region, all but its own nodes.

    Attributes:
        front: Nodes in front, by index in the first graph, in order.
        behind: Nodes behind.
        inputs: Tensors of the first graph that have to be given.
        outputs: The tensors that are asked for.
    """

    front: tuple[int, ...]
    behind: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Names:
    """New names, none like another."""

    def __init__(self, graphs: Iterable[Graph]) -> None:
        """Those in the graphs are taken."""
        self._taken = {name for graph in graphs for name in all_names(graph.proto)}

    def new(self, name: str) -> str:
        """A name like this one that nothing has."""
        found = next(n for n in map(f"{name}/tuned{{}}".format, count()) if n not in self._taken)
        self._taken.add(found)
        return found


def around(graph: Graph, region: Region) -> Extract:
    """What is around a region in the first graph, which makes it in the first way."""
    own = set(region.parts[0].nodes)
    read = dict.fromkeys(name for part in region.parts for name in part.inputs)
    front = _reached(read, lambda name: [graph.producers.get(name, -1)], graph.reads, own)
    made = [graph.nodes[index].output for index in range(len(graph.nodes))]
    taken = own | front
    behind = _reached(region.outputs, lambda n: graph.consumers.get(n, []), made, taken)
    before = {name for index in front for name in graph.nodes[index].output}
    inside = before | set(region.outputs)
    inside |= {name for index in behind for name in graph.nodes[index].output}
    needed = dict.fromkeys((*read, *(n for i in (*front, *behind) for n in graph.reads[i])))
    inputs = tuple(name for name in needed if name not in inside and is_given(graph, name))
    used = {name for index in behind for name in graph.reads[index]}
    ends = [name for index in sorted(behind) for name in graph.nodes[index].output]
    outputs = tuple(name for name in (*region.outputs, *ends) if name and name not in used)
    return Extract(tuple(sorted(front)), tuple(sorted(behind)), inputs, outputs)


def _reached(
    names: Iterable[str],
    nodes_at: Callable[[str], Iterable[int]],
    onward: Sequence[Iterable[str]],
    without: set[int],
) -> set[int]:
    """The nodes that are reached from tensors, step by step, some left out."""
    found: set[int] = set()
    for _ in range(DEPTH):
        step = {i for name in names for i in nodes_at(name) if i >= 0} - found - without
        found |= step
        names = [name for index in step for name in onward[index]]
    return found


def model_of(
    graphs: Sequence[Graph],
    region: Region,
    way: int,
    extract: Extract,
    values: Mapping[str, Array],
    like: onnx.ModelProto,
) -> onnx.ModelProto:
    """The model that computes a region in one way, from tensors that are given.

    Args:
        graphs: The models' main graphs; the nodes around come from the first.
        region: The region.
        way: Which of them makes it.
        extract: What is around.
        values: Values of the tensors that are given, for their types.
        like: The model around, for its opsets.
    """
    first = graphs[0]
    constants: dict[str, Array] = {}
    nodes = [first.nodes[index] for index in extract.front]
    names = Names((first, graphs[way]))
    nodes += own_nodes(graphs[way], region.parts[way], region.outputs, names, constants)
    nodes += [first.nodes[index] for index in extract.behind]
    for index in (*extract.front, *extract.behind):
        for name in filter(first.is_constant, first.reads[index]):
            value = first.constant(name)
            assert value is not None
            constants[name] = value
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
        )
        for name in extract.inputs
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in extract.outputs]
    weights = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    made = onnx.helper.make_graph(nodes, "region", inputs, outputs, weights)
    model = onnx.helper.make_model(made, opset_imports=like.opset_import, functions=like.functions)
    model.ir_version = max(like.ir_version, 4)
    return model


def own_nodes(
    graph: Graph,
    part: Part,
    outputs: Collection[str],
    names: Names,
    constants: dict[str, Array],
    known: Graph | None = None,
) -> list[onnx.NodeProto]:
    """Copies of a region's nodes; they, what is inside, and every constant get new names.

    Args:
        graph: The graph that the region comes from.
        part: The region there.
        outputs: The tensors that keep their names.
        names: Gives the new names.
        constants: Given the constants that the nodes read, by their new names.
        known: A graph whose constants keep their names.
    """
    nodes = [graph.nodes[index] for index in part.nodes]
    read = {name for index in part.nodes for name in graph.reads[index]}
    made = (name for node in nodes for name in node.output if name)
    new = {name: names.new(name) for name in made if name not in outputs}
    for name in filter(graph.is_constant, read):
        value = graph.constant(name)
        assert value is not None
        if known is None or not _is_same(known.constant(name), value):
            new[name] = names.new(name)
            constants[new[name]] = value
    copies = [renamed(node, new) for node in nodes]
    for node in filter(lambda node: node.name, copies):
        node.name = names.new(node.name)
    return copies


def _is_same(one: Array | None, other: Array) -> bool:
    return (
        one is not None
        and (one.dtype, one.shape) == (other.dtype, other.shape)
        and one.tobytes() == other.tobytes()
    )
