"""A scale or a shift between layers as a layer: a depthwise 1x1 Conv.

    Conv -> activation -> x + b -> Conv    ->    Conv -> activation -> Conv 1x1 -> Conv

In front of padding a shift cannot join the Conv behind it, and an activation keeps it from the one
before. ONNX Runtime's CPU provider has its Convs work on blocks of channels; an Add in between has
it put every number in order and back into blocks. A Conv does not.

1. One elementwise node scales or shifts images of two dimensions, in float32, by constants for each
   channel or for all of them. The channels fill blocks of 16.
2. What it reads comes from Convs and poolings, through elementwise nodes.
3. Convs and poolings alone read what it makes.

Tried when there is nothing left to fold: most scales and shifts join a layer before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from onnxfuse.affine import Refusal
from onnxfuse.cost import LANES
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import Array, Graph
from onnxfuse.messages import operator
from onnxfuse.rewrites.lines import Line, line
from onnxfuse.rewrites.pointwise import is_pointwise
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in

_LAYERS = frozenset({"AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Neg", "Sub"})
_IMAGE_RANK = 4
_MOST_NODES = 12  # between a layer and the node
_PROBE = (2, 3, 4)  # N, H, W


def layer_shifts(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Puts depthwise Convs in the place of scales and shifts between layers.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If a Conv does not agree with the node it replaces.
    """
    outcome = Outcome()
    if not graph.takes_initializers:
        return outcome
    for index in range(len(graph.nodes)):
        found = _between_layers(graph, index, skip)
        if found is not None:
            outcome.folds.append(_replaced(graph, index, found))
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _between_layers(graph: Graph, index: int, skip: frozenset[str]) -> Line | None:
    """The node as a line along the channels, where it stands between layers."""
    node = graph.nodes[index]
    if operator(node) not in _ELEMENTWISE - skip or not _is_for_layers(graph, node.output[0]):
        return None
    if graph.type(node.output[0]).elem_type != TensorProto.FLOAT:
        return None
    found = line(graph, index)
    if found is None or (found.axis, found.rank) != (1, _IMAGE_RANK) or len(found.scale) % LANES:
        return None
    return found if _is_of_layers(graph, index) else None


def _is_for_layers(graph: Graph, name: str) -> bool:
    if graph.is_pinned(name):
        return False
    return all(operator(graph.nodes[index]) in _LAYERS for index in graph.consumers.get(name, ()))


def _is_of_layers(graph: Graph, index: int) -> bool:
    """True where layers make all that a node computes on, through elementwise nodes."""
    seen = {index}
    pending = [index]
    while pending:
        for name in graph.data(pending.pop()):
            maker = graph.producers.get(name)
            if maker is None or len(seen) > _MOST_NODES:
                return False
            if operator(graph.nodes[maker]) in _LAYERS or maker in seen:
                continue
            if not is_pointwise(graph, maker):
                return False
            seen.add(maker)
            pending.append(maker)
    return True


def _replaced(graph: Graph, index: int, found: Line) -> Fold:
    """Puts the Conv in."""
    (x,) = graph.data(index)
    target = graph.nodes[index].output[0]
    channels = len(found.scale)
    weight, bias = (graph.unique_name(f"{target}/{role}") for role in ("weight", "bias"))
    exact = {weight: found.scale.reshape(-1, 1, 1, 1), bias: found.shift}
    name = graph.unique_name(f"{target}/Conv")
    conv = onnx.helper.make_node(
        "Conv", [x, weight, bias], [target], name=name, group=channels, kernel_shape=[1, 1]
    )
    replacement = Replacement(
        kind="a layer",
        formula=f"y = scale * x + shift, as a depthwise Conv of {channels} channels",
        source=x,
        target=target,
        before=(index,),
        gone=(index,),
        nodes=[conv],
        constants={key: value.astype(np.float32) for key, value in exact.items()},
        exact=exact,
    )
    certificate = certify_equal(graph, replacement, _probes(x, channels))
    assert not isinstance(certificate, Refusal)  # the weights were finite numbers of float32
    return put_in(graph, replacement, certificate)


def _probes(source: str, channels: int) -> Iterator[dict[str, Array]]:
    images, *size = _PROBE
    rng = np.random.default_rng(zlib.crc32(source.encode()))
    yield {source: rng.standard_normal((images, channels, *size))}
