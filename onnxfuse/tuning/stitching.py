"""A model whose regions are taken from several optimizations of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxfuse.errors import ModelError
from onnxfuse.graph import Array, Graph
from onnxfuse.io.order import sort_nodes
from onnxfuse.tuning.extracting import Names, own_nodes
from onnxfuse.tuning.regions import Region


def stitched(
    model: onnx.ModelProto, graphs: Sequence[Graph], chosen: Mapping[Region, int]
) -> onnx.ModelProto | None:
    """The first model, with some regions made as others make them.

    Args:
        model: The first model; not changed.
        graphs: The models' main graphs.
        chosen: The regions that change, and which model makes each.

    Returns:
        The model; None where regions would wait for each other.
    """
    first = graphs[0]
    gone: set[int] = set()
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {}
    names = Names(graphs)
    for region, way in chosen.items():
        gone.update(region.parts[0].nodes)
        part = region.parts[way]
        nodes += own_nodes(graphs[way], part, region.outputs, names, constants, known=first)
    kept = [node for index, node in enumerate(first.nodes) if index not in gone]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend([*kept, *nodes])
    graph = Graph(copy.graph, first.opset, first.ir_version, load=first.load, keep=first.keep)
    for name, value in constants.items():
        graph.add_constant(name, np.asarray(value))
    graph.commit(prune=True)
    try:
        sort_nodes(copy.graph, "the tuned model")
    except ModelError:
        return None
    return copy
