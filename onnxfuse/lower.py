"""AffineConv -> ONNX nodes: the cheapest form that computes the map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxfuse.affine import (
    AffineConv,
    Array,
    FixedWindow,
    Term,
    is_trivial,
    regroup,
    taps,
    trim,
    without_crops,
)
from onnxfuse.graph import Graph
from onnxfuse.lift import View
from onnxfuse.lift.convolution import swap_channels
from onnxfuse.turned import Turned, over_rank

_GEMM_WITHOUT_BIAS = 11


@dataclass(frozen=True)
class Lowered:
    """Nodes for a map from `source` to `target`.

    Attributes:
        nodes: In topological order; none when the target is the source itself.
        constants: Their initializers, in float64, not yet rounded.
        term: The map as written: trimmed and regrouped.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    term: Term


class _Writer:
    """Collects nodes and constants; `value` is the tensor that the next node reads."""

    def __init__(self, graph: Graph, source: str, target: str) -> None:
        self.graph, self.target, self.value = graph, target, source
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def constant(self, role: str, value: Array) -> str:
        name = self.graph.unique_name(f"{self.target}.{role}")
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def node(self, op_type: str, inputs: list[str], **attributes: Any) -> None:
        output = self.graph.unique_name(f"{self.target}.{op_type.lower()}")
        name = self.graph.unique_name(f"{self.target}/{op_type}")
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        self.value = output

    def channel_vector(self, role: str, values: Array, view: View) -> str:
        """A vector shaped to broadcast along the channels, or a scalar when all are equal."""
        if np.all(values == values[0]):
            return self.constant(role, values[0].reshape(()))
        return self.constant(role, values.reshape(-1, *(1,) * (view.rank - view.axis - 1)))

    def finish(self, term: Term) -> Lowered:
        if self.nodes:
            self.nodes[-1].output[0] = self.target
        return Lowered(tuple(self.nodes), self.constants, term)


def lower(
    graph: Graph, term: Term, view: View, source: str, target: str, turned: Turned | None = None
) -> Lowered:
    """Writes a map as nodes that read `source` and make `target`.

    Args:
        graph: The graph the names are for.
        term: The map.
        view: How the target is read, and the source if it is not turned.
        source: The tensor to read.
        target: The tensor to make.
        turned: How the source is read when a Transpose lies between.
    """
    writer = _Writer(graph, source, target)
    if turned is None:
        return writer.finish(_write(writer, term, view))
    order = list(turned.order)
    if isinstance(term, AffineConv) and term.is_pointwise and term.out_channels <= term.in_channels:
        term = _write(writer, over_rank(term, len(turned.view.spatial)), turned.view)
        writer.node("Transpose", [writer.value], perm=order)
    else:
        writer.node("Transpose", [writer.value], perm=order)
        term = _write(writer, term, view)
    return writer.finish(term)


def _write(writer: _Writer, term: Term, view: View) -> Term:
    """Adds the nodes of a map; returns it as written."""
    if isinstance(term, FixedWindow):
        _write_window(writer, term)
        return term
    term = trim(regroup(term)) if view.spatial else regroup(term)
    if is_trivial(term):
        return term
    if term.is_channelwise and (not view.spatial or not _needs_both(term)):
        _write_channelwise(writer, term, view)
        return term
    if term.reads_outside and term.outside_of is not None:
        writer.node("Add", [writer.value, writer.channel_vector("shift", -term.outside, view)])
        shifted = term.bias + taps.apply_to_constant(term.weight, term.groups, term.outside)
        bias = shifted if np.any(shifted) else None
    else:
        bias = term.bias if term.bias_of is not None and np.any(term.bias) else None
    if view.spatial:
        _write_conv(writer, without_crops(term), bias)
    else:
        _write_matrix(writer, term, bias, view)
    return term


def _needs_both(term: AffineConv) -> bool:
    return bool(np.any(term.bias)) and not np.all(term.weight == 1.0)


def _write_channelwise(writer: _Writer, term: AffineConv, view: View) -> None:
    scale = term.weight.reshape(-1)
    if not np.all(scale == 1.0):
        writer.node("Mul", [writer.value, writer.channel_vector("scale", scale, view)])
    if np.any(term.bias):
        writer.node("Add", [writer.value, writer.channel_vector("shift", term.bias, view)])


def _write_conv(writer: _Writer, term: AffineConv, bias: Array | None) -> None:
    inputs = [writer.value, writer.constant("weight", term.weight)]
    if bias is not None:
        inputs.append(writer.constant("bias", bias))
    writer.node(
        "Conv",
        inputs,
        dilations=list(term.dilations),
        group=term.groups,
        kernel_shape=list(term.kernel),
        pads=list(term.pads),
        strides=list(term.strides),
    )


def _write_matrix(writer: _Writer, term: AffineConv, bias: Array | None, view: View) -> None:
    weight = taps.coarsen(term.weight, term.groups, 1)
    if view == View.image(2) and bias is not None:
        inputs = [writer.value, writer.constant("weight", weight), writer.constant("bias", bias)]
        writer.node("Gemm", inputs, transB=1)
        return
    if view.axis == view.rank - 1:
        writer.node("MatMul", [writer.value, writer.constant("weight", weight.T)])
    else:
        writer.node("MatMul", [writer.constant("weight", weight), writer.value])
    if bias is not None:
        writer.node("Add", [writer.value, writer.channel_vector("bias", bias, view)])


def _write_window(writer: _Writer, term: FixedWindow) -> None:
    weight = term.weight
    if term.op_type == "ConvTranspose":
        weight = swap_channels(weight, term.groups)
    inputs = [writer.value, writer.constant("weight", weight)]
    if term.bias_of is not None and np.any(term.bias):
        inputs.append(writer.constant("bias", term.bias))
    if term.op_type == "Gemm":
        if len(inputs) == 2 and writer.graph.opset < _GEMM_WITHOUT_BIAS:
            inputs.append(writer.constant("bias", np.zeros(term.out_channels)))
        writer.node("Gemm", inputs, transB=1, **term.attributes)
    else:
        writer.node(term.op_type, inputs, group=term.groups, **term.attributes)
