"""Proofs of activations, kept: a model writes the same one out many times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.certify import Certificate
from onnxfuse.graph import Array, Graph
from onnxfuse.rewrites.proving import Reals, Replacement, certify_alike


class Proofs:
    """Certificates of replacements, one for all that differ in their names alone."""

    def __init__(self) -> None:
        self._known: dict[bytes, Certificate | Refusal] = {}

    def certify(self, graph: Graph, replacement: Replacement, x: Reals) -> Certificate | Refusal:
        """What `certify_alike` says, or said of the same nodes on the same numbers."""
        key = _digest(graph, replacement, x)
        if key not in self._known:
            self._known[key] = certify_alike(graph, replacement, x)
        return self._known[key]


def _digest(graph: Graph, replacement: Replacement, x: Reals) -> bytes:
    """Everything that `certify_alike` looks at, without the names."""
    digest = hashlib.sha256()
    for part in (str(graph.opset).encode(), *_array(x), *_nodes(graph, replacement)):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _nodes(graph: Graph, replacement: Replacement) -> Iterator[bytes]:
    old = [graph.nodes[index] for index in replacement.before]
    for nodes in (old, replacement.nodes):
        made = {"": b"none", replacement.source: b"x"}
        for node in nodes:
            bare = onnx.NodeProto()
            bare.CopyFrom(node)
            for field in ("name", "doc_string", "input", "output", "metadata_props"):
                bare.ClearField(field)
            yield bare.SerializeToString(deterministic=True)
            for name in node.input:
                yield from (made[name],) if name in made else _constant(graph, replacement, name)
            made |= {name: b"node %d" % len(made) for name in node.output}


def _constant(graph: Graph, replacement: Replacement, name: str) -> tuple[bytes, ...]:
    for held in (replacement.exact, replacement.constants):
        if name in held:
            return _array(held[name])
    return _array(np.asarray(graph.constant(name)))


def _array(value: Array) -> tuple[bytes, ...]:
    return str(value.dtype).encode(), str(value.shape).encode(), value.tobytes()
