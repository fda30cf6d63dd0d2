"""Layers with filters of zeros, and columns of zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, helper

import onnxfuse
from onnxfuse.fold import Fold
from tests.lift.building import Builder
from tests.lift.comparing import Folded, optimized

SIZES = ({"n": 1, "h": 9, "w": 8}, {"n": 2, "h": 7, "w": 11})
C = 32
DEAD = range(3, 23)  # 20 of them: 12 are left, and 4 more to fill a block
LEFT = 16


def start(b: Builder, channels: int = 6, name: str = "x") -> str:
    return b.input("n", channels, "h", "w", name=name)


def conv(
    b: Builder,
    x: str,
    inputs: int,
    outputs: int,
    kernel: Sequence[int] = (1, 1),
    *,
    dead: Sequence[int] = (),
    unread: Sequence[int] = (),
    bias: bool | float = True,
    **settings: object,
) -> str:
    """A Conv: `dead` filters are zero, `unread` columns too; `bias` gives the sign that it has."""
    group = settings.get("group", 1)
    weight = b.values(outputs, inputs // group, *kernel)
    weight[list(dead)] = 0
    weight[:, list(unread)] = 0
    shift = b.values(outputs)
    if not isinstance(bias, bool):
        shift = bias * np.abs(shift)
    extra = [b.constant(shift)] if bias is not False else []
    return b.op("Conv", x, b.constant(weight), *extra, **settings)


def dying(b: Builder, **how: object) -> str:
    """A pointwise Conv of an image to C channels, some of them dead."""
    return conv(b, start(b), 6, C, **{"dead": DEAD, **how})


def behind(b: Builder, x: str, channels: int = C, kernel: Sequence[int] = (1, 1), **how) -> str:
    """The layer that reads the channels."""
    return conv(b, x, channels, 5, kernel, **how)


def folds(folded: Folded) -> list[Fold]:
    return [fold for fold in folded.report.folds if fold.step == "channels"]


def thinned(model: ModelProto, *sizes, left: int = LEFT, count: int = C, **options) -> Folded:
    """Optimizes: one group of channels gets thinner, and nothing else is lost by it."""
    folded = optimized(model, *(sizes or SIZES), **options)
    (fold,) = folds(folded)
    assert fold.certificate.error < 1e-12
    assert fold.formula.endswith(f"of {count} channels carry nothing: {left} remain")
    ops = [node.op_type for node in folded.model.graph.node]
    without = optimized(model, *(sizes or SIZES), **{**options, "skip": ["channels"]})
    assert not folds(without)
    assert folded.report.after.parameter_bytes < without.report.after.parameter_bytes
    assert sorted(set(ops)) == sorted(set(ops) & {*without.ops, "Add"})
    return folded


def kept(model: ModelProto, *sizes, **options) -> Folded:
    """Optimizes: no channel goes."""
    folded = optimized(model, *(sizes or SIZES), **options)
    assert folds(folded) == []
    return folded


def folds_of(model: ModelProto) -> int:
    """How many groups of channels get thinner, whether a runtime takes the model or not."""
    report = onnxfuse.optimize(model).report
    return sum(fold.step == "channels" for fold in report.folds)


def weights(folded: Folded, op_type: str = "Conv") -> list[list[int]]:
    """Shapes of the weights, in the order of the nodes."""
    shapes = {t.name: list(t.dims) for t in folded.model.graph.initializer}
    return [shapes[n.input[1]] for n in folded.model.graph.node if n.op_type == op_type]


def body(op_type: str, reads: str, name: str) -> helper.GraphProto:
    out = helper.make_tensor_value_info(name, 1, None)
    return helper.make_graph([helper.make_node(op_type, [reads], [name])], name, [], [out])


def gelu(b: Builder, x: str, shape: tuple[int, ...] = ()) -> str:
    """As exporters write it out."""
    bent = b.op("Erf", b.op("Div", x, b.constant(np.full(shape, 2.0**0.5))))
    half = b.op("Mul", x, b.op("Add", bent, b.constant(np.ones(shape))))
    return b.op("Mul", half, b.constant(np.full(shape, 0.5)))


def matrix(b: Builder, rows: int, columns: int, dead: Sequence[int] = ()) -> np.ndarray:
    weight = b.values(rows, columns)
    weight[:, list(dead)] = 0
    return weight
