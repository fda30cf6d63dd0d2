"""How a node was wired: what a report needs to draw it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from onnxfuse.graph import Dim, Graph
from onnxfuse.messages import attributes

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_POOLINGS = frozenset({"AveragePool", "MaxPool", "LpPool"})
_SPATIAL_NAMES = (("strides", "stride"), ("dilations", "dilation"))


@dataclass(frozen=True)
class Wiring:
    """What a node read and made, and its settings in short.

    Attributes:
        inputs: The tensors that it computed from, in order.
        input_shapes: Their shapes.
        constants: The constants that it read, in order.
        outputs: The tensors that it made.
        shape: Shape of its first output. An extent is a number, a symbol, or None where nothing is
            known; the shape is None where not even the rank is.
        settings: Its kernel, stride and so on, in words, such as "3x3, 16 -> 32, stride 2x2".
    """

    inputs: tuple[str, ...]
    input_shapes: tuple[tuple[Dim, ...] | None, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[Dim, ...] | None
    settings: str


def wiring(graph: Graph, node: onnx.NodeProto) -> Wiring:
    """The wiring of a node of the graph, or of one that is about to become one."""
    given = tuple(dict.fromkeys(name for name in node.input if name))
    constants = tuple(name for name in given if graph.is_constant(name))
    inputs = tuple(name for name in given if name not in constants)
    return Wiring(
        inputs=inputs,
        input_shapes=tuple(graph.type(name).shape for name in inputs),
        constants=constants,
        outputs=tuple(name for name in node.output if name),
        shape=graph.type(node.output[0]).shape,
        settings=", ".join(_settings(graph, node)),
    )


def _settings(graph: Graph, node: onnx.NodeProto) -> list[str]:
    held = attributes(node)
    shape = graph.constant_shape(node.input[1]) if len(node.input) > 1 else None
    words: list[str] = []
    groups = held["group"].i if "group" in held else 1
    if node.op_type in _CONVOLUTIONS and shape is not None and len(shape) > 2:
        first, second = shape[0], shape[1] * groups
        ends = (second, first) if node.op_type == "Conv" else (first, second)
        words += [_by(shape[2:]), f"{ends[0]} -> {ends[1]}"]
    elif node.op_type in _POOLINGS and "kernel_shape" in held:
        words.append(_by(held["kernel_shape"].ints))
    elif node.op_type == "BatchNormalization" and shape is not None:
        words.append(f"{shape[0]} channels")
    elif node.op_type in ("MatMul", "Gemm") and shape is not None:
        words.append(f"by {_by(shape)}")
    else:
        sizes = [known for name in node.input if (known := graph.constant_shape(name)) is not None]
        words += [_constant(size) for size in sizes[:1]]
    if groups != 1:
        words.append(f"groups {groups}")
    for key, word in _SPATIAL_NAMES:
        if key in held and set(held[key].ints) != {1}:
            words.append(f"{word} {_by(held[key].ints)}")
    if "pads" in held and any(held["pads"].ints):
        words.append(f"pads {_pads(tuple(held['pads'].ints))}")
    if "axis" in held:
        words.append(f"axis {held['axis'].i}")
    if "perm" in held:
        words.append(f"order {','.join(map(str, held['perm'].ints))}")
    return words


def _by(extents: Iterable[int]) -> str:
    return "x".join(map(str, extents))


def _constant(shape: tuple[int, ...]) -> str:
    if len(shape) > 1:
        return f"constant {_by(shape)}"
    return f"vector of {shape[0]}" if shape else "scalar"


def _pads(pads: tuple[int, ...]) -> str:
    """Once where all are the same, else begins and ends, as in ONNX."""
    return str(pads[0]) if len(set(pads)) == 1 else ",".join(map(str, pads))
