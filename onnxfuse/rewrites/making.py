"""Puts an activation in, with its proof."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph
from onnxfuse.rewrites.activations import NOTHING, Line, Recipe
from onnxfuse.rewrites.polynomial import Polynomial
from onnxfuse.rewrites.proving import Replacement, put_in

_PROBES = 512
_RANGES = (1.0, 10.0, 600.0)
_ROUNDINGS = 4  # spacings: numbers in it were rounded, on one side or on both
SPACINGS: Mapping[int, float] = {
    onnx.TensorProto.FLOAT: 2.0**-23,
    onnx.TensorProto.FLOAT16: 2.0**-10,
}
"""Of numbers near 1, in the types in which ONNX Runtime has every activation."""


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


def replaced(graph: Graph, match: Match) -> Fold | None:
    """Puts a recipe in the place of the nodes.

    Args:
        graph: The graph; changed, not committed.
        match: The recipe, and what it is for.

    Returns:
        The record of it; None where its numbers are not exact enough.

    Raises:
        CertificateError: If it does not agree with the nodes it replaces.
    """
    nodes, constants = _made(graph, match)
    kind = match.recipe.kind
    replacement = Replacement(
        kind=kind,
        formula=f"y = {kind}(x)",
        source=match.base,
        target=match.target,
        before=match.between,
        gone=match.gone,
        nodes=nodes,
        constants=constants,
    )
    allowed = _ROUNDINGS * SPACINGS[graph.type(match.target).elem_type]
    return put_in(graph, replacement, _probes(graph, match), allowed)


def _made(graph: Graph, match: Match) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """The nodes of a recipe, and their constants in the model's type."""
    maker = _Maker(graph, match.target)
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
    return maker.nodes, maker.constants


class _Maker:
    """Makes nodes one by one, and their constants."""

    def __init__(self, graph: Graph, target: str) -> None:
        self.graph, self.target = graph, target
        kind = graph.type(target).elem_type
        self.dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
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
        self.constants[name] = np.asarray(value, self.dtype)
        return name

    def line(self, name: str, line: Line) -> str:
        """Scales and shifts a tensor, where there is anything to do."""
        for op_type, value, nothing in zip(("Mul", "Add"), line, NOTHING, strict=True):
            if value != nothing:
                name = self.node(op_type, [name, self.constant(value)], {})
        return name


def _probes(graph: Graph, match: Match) -> Iterator[dict[str, Array]]:
    """Numbers near zero, where the function bends, and far away."""
    rng = np.random.default_rng(zlib.crc32(match.target.encode()))
    shape = (_PROBES, *(1,) * ((graph.type(match.base).rank or 1) - 1))
    for reach in (*_RANGES, *(2 * abs(bend) for bend in match.function.bends)):
        yield {match.base: rng.uniform(-reach, reach, shape)}
