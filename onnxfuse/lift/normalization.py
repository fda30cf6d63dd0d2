"""BatchNormalization (ONNX, opsets 1 to 15), in inference form."""

from __future__ import annotations

import numpy as np

from onnxfuse.affine import Array, Deferred, Refusal, channel_affine
from onnxfuse.lift.convolution import unary
from onnxfuse.lift.site import Site, Step


def batch_normalization(site: Site) -> Step | Refusal:
    """BatchNormalization(x) -> scale * (x - mean) / sqrt(var + epsilon) + bias, per channel."""
    collects = site.graph.opset < 14 and any(site.node.output[1:])
    if site.integer("training_mode", 0) or collects:
        return Refusal("BatchNormalization in training mode: export the model with model.eval()")
    if site.graph.opset < 9 and not site.integer("spatial", 1):
        return Refusal("its statistics are per position (spatial=0)")
    names = [site.input(i) for i in range(1, 5)]
    shapes = [s for n in names if (s := site.shape_of(n)) is not None]
    if len(shapes) < len(names):
        return Refusal("its statistics are not constant")
    channels = shapes[0][0] if len(shapes[0]) == 1 else 0
    if not channels or set(shapes) != {(channels,)}:
        return Refusal(f"its statistics have shapes {list(map(list, shapes))}")
    gamma, beta, mean, var = (site.float64(n) for n in names)
    epsilon = site.real("epsilon", float(np.float32(1e-5)))

    def scale() -> Array:
        return gamma() / np.sqrt(var() + epsilon)

    scale_of = Deferred(scale)
    shift_of = Deferred(lambda: beta() - mean() * scale_of())
    rank = len(site.view.spatial)
    return unary(site.input(0), channel_affine(scale_of, shift_of, channels, rank))
