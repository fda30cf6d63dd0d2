"""The regions that `measure_defaults` measures: for each rewrite, what networks have of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAME = [1, 1, 1, 1]
NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


class Region(NamedTuple):
    """What a rewrite is for, by its name, with a name of its own."""

    step: str
    name: str
    model: onnx.ModelProto


class _Net:
    """Collects the nodes and weights of a region; every method gives a tensor's name."""

    def __init__(self, *shape: int) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape, self.count = shape, itertools.count()
        self.x = self.op("Relu", "image")

    def constant(self, value: Any) -> str:
        name = f"c{next(self.count)}"
        array = np.asarray(value)
        wanted = np.float32 if array.dtype.kind == "f" else np.int64
        self.weights.append(numpy_helper.from_array(array.astype(wanted), name))
        return name

    def random(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(-0.5, 0.5, shape))

    def op(self, op_type: str, *inputs: str, **settings: Any) -> str:
        return self.ops(op_type, 1, *inputs, **settings)[0]

    def ops(self, op_type: str, outputs: int, *inputs: str, **settings: Any) -> list[str]:
        made = [f"t{next(self.count)}" for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, made, name=made[0], **settings))
        return made

    def conv(self, x: str, inputs: int, outputs: int, size: int = 1, **settings: Any) -> str:
        pads = [size // 2] * 4
        weight = self.random(outputs, inputs // settings.get("group", 1), size, size)
        return self.op("Conv", x, weight, self.random(outputs), pads=pads, **settings)

    def norm(self, x: str, channels: int) -> str:
        given = [self.random(channels) for _ in range(3)]
        variance = self.constant(self.rng.uniform(0.5, 1.5, channels))
        return self.op("BatchNormalization", x, *given, variance)

    def model(self, y: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "region",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _fold(channels: int, size: int) -> onnx.ModelProto:
    """A block of RepVGG."""
    n = _Net(1, channels, size, size)
    branches = [n.norm(n.conv(n.x, channels, channels, k), channels) for k in (3, 1)]
    total = n.op("Add", n.op("Add", *branches), n.norm(n.x, channels))
    return n.model(n.op("Relu", total))


def _gate(channels: int, size: int) -> onnx.ModelProto:
    """Squeeze-and-excitation with a residual."""
    n = _Net(1, channels, size, size)
    x = n.conv(n.x, channels, channels)
    squeezed = n.op("Relu", n.conv(n.op("GlobalAveragePool", x), channels, channels // 4))
    gate = n.op("HardSigmoid", n.conv(squeezed, channels // 4, channels))
    return n.model(n.conv(n.op("Add", x, n.op("Mul", x, gate)), channels, channels))


def _hard_swish(channels: int, size: int) -> onnx.ModelProto:
    """A hard-swish in four steps, between layers."""
    n = _Net(1, channels, size, size)
    x = n.conv(n.x, channels, channels)
    clipped = n.op("Clip", n.op("Add", x, n.constant(3.0)), n.constant(0.0), n.constant(6.0))
    y = n.op("Div", n.op("Mul", x, clipped), n.constant(6.0))
    return n.model(n.conv(y, channels, channels, 3, group=channels))


def _scaled(channels: int, size: int) -> onnx.ModelProto:
    """A scale and a shift behind an activation, with a pooling in front of the next layer."""
    n = _Net(1, channels, size, size)
    x = n.op("HardSwish", n.conv(n.x, channels, channels))
    y = n.op("Add", n.op("Mul", x, n.constant(0.9)), n.constant(0.1))
    y = n.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    return n.model(n.op("Relu", n.conv(y, channels, channels)))


def _shifted(channels: int, size: int) -> onnx.ModelProto:
    """A shift between an activation and a padded depthwise layer."""
    n = _Net(1, channels, size, size)
    y = n.op("Add", n.op("HardSwish", n.conv(n.x, channels, channels)), n.constant(0.1))
    y = n.conv(n.op("Relu", n.conv(y, channels, channels, 3, group=channels)), channels, channels)
    return n.model(n.op("Relu", y))


def _cut(channels: int, size: int) -> onnx.ModelProto:
    """A block of YOLOv8's backbone, whose first layer is cut in two."""
    n = _Net(1, channels, size, size)
    half = channels // 2

    def silu(x: str) -> str:
        return n.op("Mul", x, n.op("Sigmoid", x))

    first, second = n.ops("Split", 2, silu(n.conv(n.x, channels, channels)), axis=1)
    third = silu(n.conv(silu(n.conv(second, half, half, 3)), half, half, 3))
    together = n.op("Concat", first, second, third, axis=1)
    return n.model(silu(n.conv(together, channels + half, channels)))


def _heads(channels: int, kernel: int, size: int, *outputs: int) -> onnx.ModelProto:
    """Heads of a detector, each read off by places as detectors do."""
    n = _Net(1, channels, size, size)
    x = n.op("Relu", n.conv(n.x, channels, channels))
    heads = [n.conv(x, channels, count, kernel) for count in outputs]
    flat = [
        n.op("Reshape", n.op("Transpose", head, perm=[0, 2, 3, 1]), n.constant([0, -1, count]))
        for head, count in zip(heads, outputs, strict=True)
    ]
    return n.model(n.op("Concat", *flat, axis=2))


def _towers(channels: int, kernel: int, size: int, *outputs: int) -> onnx.ModelProto:
    """Narrow layers over one tensor, each with a wider one behind it."""
    n = _Net(1, channels, size, size)
    x = n.op("Relu", n.conv(n.x, channels, channels))
    narrow = [n.op("Relu", n.conv(x, channels, count, kernel)) for count in outputs]
    wide = [n.conv(y, count, 32, 3) for y, count in zip(narrow, outputs, strict=True)]
    return n.model(n.op("Relu", n.op("Concat", *wide, axis=1)))


def _pruned(channels: int, hidden: int, size: int) -> onnx.ModelProto:
    """Two pointwise layers, half of whose hidden channels have filters of zeros."""
    n = _Net(1, channels, size, size)
    x = n.conv(n.x, channels, hidden)
    weight = numpy_helper.to_array(n.weights[0]).copy()
    weight[::2] = 0
    n.weights[0].CopyFrom(numpy_helper.from_array(weight, n.weights[0].name))
    return n.model(n.conv(n.op("HardSwish", x), hidden, channels))


def _upsampled(channels: int, outputs: int, size: int, beside: int = 0) -> onnx.ModelProto:
    """A 3x3 Conv over an upsampled map, beside which another one may be."""
    n = _Net(1, channels, size, size)
    small = n.conv(n.x, channels, channels)
    large = n.op("Resize", small, "", n.constant([1.0, 1.0, 2.0, 2.0]), **NEAREST)
    if beside:
        other = n.op(
            "Relu", n.op("ConvTranspose", n.x, n.random(channels, beside, 2, 2), strides=[2, 2])
        )
        large = n.op("Concat", large, other, axis=1)
    return n.model(n.op("Relu", n.conv(large, channels + beside, outputs, 3)))


def _transposed(channels: int, middle: int, outputs: int, size: int) -> onnx.ModelProto:
    """Two ConvTransposes in a row."""
    n = _Net(1, channels, size, size)
    settings = {"strides": [2, 2], "kernel_shape": [2, 2]}
    weights = n.random(channels, middle, 2, 2), n.random(middle, outputs, 2, 2)
    y = n.op("Relu", n.op("ConvTranspose", n.x, weights[0], n.random(middle), **settings))
    y = n.op("ConvTranspose", y, weights[1], n.random(outputs), **settings)
    return n.model(n.op("Sigmoid", y))


def _distribution(bins: int, length: int) -> onnx.ModelProto:
    """The mean of a distribution over distances, as in the head of YOLOv8."""
    n = _Net(1, 4 * bins, length)
    y = n.op("Reshape", n.x, n.constant([0, 4, bins, -1]))
    y = n.op("Softmax", n.op("Transpose", y, perm=[0, 2, 1, 3]), axis=1)
    y = n.op("Conv", y, n.constant(np.arange(float(bins)).reshape(1, bins, 1, 1)))
    return n.model(n.op("Reshape", y, n.constant([0, 4, -1])))


def _softmax(channels: int, size: int) -> onnx.ModelProto:
    """A Softmax over classes."""
    n = _Net(1, channels, size, size)
    return n.model(n.op("Softmax", n.conv(n.x, channels, channels), axis=1))


def _shuffled(outputs: int, block: int, size: int) -> onnx.ModelProto:
    """A layer and DepthToSpace, as at the end of a network for super-resolution."""
    n = _Net(1, 16, size, size)
    y = n.conv(n.x, 16, outputs * block * block, 3)
    return n.model(n.op("DepthToSpace", y, blocksize=block, mode="CRD"))


def _narrow(channels: int, middle: int, size: int) -> onnx.ModelProto:
    """Two pointwise layers, narrow in between."""
    n = _Net(1, channels, size, size)
    return n.model(n.op("Relu", n.conv(n.conv(n.x, channels, middle), middle, channels)))


_GRIDS: dict[str, tuple[Callable[..., onnx.ModelProto], str, tuple[tuple[int, ...], ...]]] = {
    "folds": (_fold, "RepVGG block, {} channels, {}x{1}", ((16, 80), (64, 40), (256, 14))),
    "gates": (_gate, "gated sum, {} channels, {}x{1}", ((24, 80), (96, 80), (96, 20))),
    "activations": (
        _hard_swish,
        "hard-swish in steps, {} channels, {}x{1}",
        ((16, 80), (64, 40), (240, 12)),
    ),
    "moves": (
        _scaled,
        "scale and shift in front of a pooling, {} channels, {}x{1}",
        ((16, 80), (64, 40), (240, 12)),
    ),
    "shifts": (
        _shifted,
        "shift in front of a padded layer, {} channels, {}x{1}",
        ((16, 80), (64, 40), (240, 12)),
    ),
    "channels": (
        _pruned,
        "half of the channels carry nothing, {} -> {} -> {0}, {}x{2}",
        ((24, 96, 80), (96, 384, 20), (192, 768, 10)),
    ),
    "splits": (
        _cut,
        "layer cut in two, {} channels, {}x{1}",
        ((32, 80), (64, 40), (128, 20)),
    ),
    "merges": (
        _heads,
        "heads over {} channels by {}x{1}, {}x{2}: {}",
        tuple(
            (channels, kernel, size, *outputs)
            for channels, size in ((64, 40), (96, 20), (256, 10))
            for kernel in (1, 3)
            for outputs in ((4, 2, 10), (4, 1), (4, 12), (20, 4), (36, 9), (36, 36))
        ),
    ),
    "softmaxes": (
        _distribution,
        "distribution over {} bins, {} places",
        ((16, 525), (16, 2100), (16, 8400)),
    ),
    "phases": (
        _upsampled,
        "3x3 Conv {} -> {} over {}x{2} upsampled",
        tuple((c, o, s) for c in (8, 16, 24, 32, 48, 72, 96) for o in (16, 64) for s in (20, 80)),
    ),
    "shuffles": (
        _transposed,
        "ConvTransposes {} -> {} -> {}, {}x{3}",
        tuple((c, c, o, 80) for c in (8, 16, 24, 32, 64) for o in (1, 3, 8)),
    ),
    "softmaxes written out": (
        _softmax,
        "Softmax over {} of {}x{1}",
        ((2, 160), (21, 128), (80, 80), (400, 20)),
    ),
    "shuffles as transposes": (
        _shuffled,
        "DepthToSpace to {} channels by {}, {}x{2}",
        ((1, 2, 160), (3, 2, 160), (3, 4, 80), (24, 2, 80)),
    ),
    "merges sooner": (
        _heads,
        "heads over {} channels by {}x{1}, {}x{2}: {}",
        ((64, 3, 40, 8, 8), (96, 1, 20, 24, 24), (96, 3, 20, 24, 24)),
    ),
    "splits sooner": (
        _cut,
        "layer cut in two, {} channels, {}x{1}",
        ((16, 80), (48, 40), (80, 20)),
    ),
    "fewer nodes": (
        _narrow,
        "pointwise {} -> {} -> {0}, {}x{2}",
        ((64, 8, 20), (128, 16, 14), (256, 32, 7)),
    ),
}


_BESIDE = (
    _upsampled,
    "3x3 Conv {} -> {} over {}x{2} upsampled, beside {} channels more",
    ((32, 24, 80, 16), (48, 24, 80, 24), (72, 24, 80, 24), (72, 64, 40, 24), (96, 24, 80, 24)),
)


_TOWERS = (
    _towers,
    "layers over {} channels by {}x{1}, {}x{2}, and behind each a wider one: {}",
    tuple((64, kernel, 40, *n) for kernel in (1, 3) for n in ((4, 12), (20, 4), (36, 9), (36, 36))),
)


def regions(only: str = "") -> Iterator[Region]:
    """All of them, or those of one step."""
    for step, (build, words, sizes) in (*_GRIDS.items(), ("phases", _BESIDE), ("merges", _TOWERS)):
        for given in sizes if not only or only == step else ():
            yield Region(step, _named(words, given), build(*given))


def _named(words: str, given: tuple[int, ...]) -> str:
    places = words.count("{}")
    *given, last = *given[: places - 1], " + ".join(map(str, given[places - 1 :]))
    numbered = itertools.count()
    while "{}" in words:
        words = words.replace("{}", f"{{{next(numbered)}}}", 1)
    return words.format(*given, last)
