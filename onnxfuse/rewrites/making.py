"""Puts an activation in, with its proof."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph
from onnxfuse.rewrites.activations import NOTHING, Line, Recipe
from onnxfuse.rewrites.polynomial import Polynomial
from onnxfuse.rewrites.proofs import Proofs
from onnxfuse.rewrites.proving import Reals, Replacement, put_in

_PROBES = 256
_REACHES = (1.0, 10.0, 600.0)
_LEAST_PROBE = 1e-6


@dataclass(frozen=True)
class Match:
    """A recipe for a tensor.

    Attributes:
        base: The tensor that it is a function of.
        target: The tensor.
        function: The function.
        recipe: The recipe.
        between: The nodes between them, by index.
        gone: Those of them that nobody needs then.
        saved: How many nodes it saves.
    """

    base: str
    target: str
    function: Polynomial
    recipe: Recipe
    between: tuple[int, ...]
    gone: tuple[int, ...]
    saved: int


def replaced(graph: Graph, match: Match, proofs: Proofs) -> Fold | Refusal:
    """Puts a recipe in the place of the nodes.

    It is as exact as the nodes, in float64 and in the model's type (see `certify_alike`): no number
    of it overflows, or underflows, either.

    Args:
        graph: The graph; changed, not committed.
        match: The recipe, and what it is for.
        proofs: Those there are; this one is added.
    """
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.type(match.target).elem_type)
    maker = _made(graph, match, dtype)
    kind = match.recipe.kind
    replacement = Replacement(
        kind=kind,
        formula=f"y = {kind}(x)",
        source=match.base,
        target=match.target,
        before=match.between,
        gone=match.gone,
        nodes=maker.nodes,
        constants=maker.constants,
    )
    certificate = proofs.certify(graph, replacement, _probe(match.function, dtype))
    if isinstance(certificate, Refusal):
        return certificate
    return put_in(graph, replacement, certificate)


def _made(graph: Graph, match: Match, dtype: np.dtype[np.floating[Any]]) -> _Maker:
    """The nodes of a recipe, and their constants in the model's type."""
    maker = _Maker(graph, match.target, dtype)
    name = maker.line(match.base, match.recipe.lead)
    made: list[str] = []
    for step in match.recipe.steps:
        inputs = [name if given < 0 else made[given] for given in step.inputs]
        settings = dict(step.attributes)
        if step.bounds is not None and graph.opset >= 11:
            inputs += [maker.constant(bound) for bound in step.bounds]
        elif step.bounds is not None:
            settings |= dict(zip(("min", "max"), step.bounds, strict=True))
        made.append(maker.node(step.op_type, inputs, settings))
    maker.line(made[-1], match.recipe.trail)
    maker.nodes[-1].output[0] = match.target
    return maker


class _Maker:
    """Makes nodes one by one, and their constants."""

    def __init__(self, graph: Graph, target: str, dtype: np.dtype[np.floating[Any]]) -> None:
        self.graph, self.target, self.dtype = graph, target, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def node(self, op_type: str, inputs: Sequence[str], settings: Mapping[str, float | str]) -> str:
        name = self.graph.unique_name(f"{self.target}/{op_type}")
        node = onnx.helper.make_node(op_type, inputs, [name], name=name)
        node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in settings.items())
        self.nodes.append(node)
        return name

    def constant(self, value: float) -> str:
        name = self.graph.unique_name(f"{self.target}/constant")
        with np.errstate(over="ignore"):
            self.constants[name] = np.asarray(value).astype(self.dtype)
        return name

    def line(self, name: str, line: Line) -> str:
        """Scales and shifts a tensor, where there is anything to do."""
        for op_type, value, nothing in zip(("Mul", "Add"), line, NOTHING, strict=True):
            if value != nothing:
                name = self.node(op_type, [name, self.constant(value)], {})
        return name


def _probe(function: Polynomial, dtype: np.dtype[np.floating[Any]]) -> Reals:
    """Numbers of a type: near zero, where the function bends, far away, and of every size."""
    rng = np.random.default_rng(zlib.crc32(function.key.encode()))
    most = np.log(float(np.finfo(dtype).max))
    sizes = np.exp(rng.uniform(np.log(_LEAST_PROBE), most, _PROBES))
    bends = np.array(sorted({0.0, *function.bends}))
    beside = bends * (1.0 + 0.01 * rng.standard_normal((_PROBES // 8, 1)))
    spread = [rng.uniform(-reach, reach, _PROBES) for reach in _REACHES]
    values = np.concatenate([bends, beside.ravel(), sizes, -sizes, *spread])
    return np.asarray(values[np.abs(values) < np.finfo(dtype).max], dtype)
