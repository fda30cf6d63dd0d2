"""BatchNormalization (ONNX, opsets 1 to 15), in inference form."""

from __future__ import annotations

import numpy as np

from onnxfuse.affine import Array, Deferred, Refusal, channel_affine
from onnxfuse.lift.convolution import unary
from onnxfuse.lift.site import Site, Step, View


def batch_normalization(site: Site) -> Step | Refusal:
    """BatchNormalization(x) -> scale * (x - mean) / sqrt(var + epsilon) + bias, per channel."""
    training = site.integer("training_mode", 0) or (
        site.graph.opset < 14 and any(site.node.output[1:])
    )
    if training or (site.graph.opset < 7 and not site.integer("is_test", 0)):
        return Refusal("BatchNormalization in training mode: export the model with model.eval()")
    if site.graph.opset < 9 and not site.integer("spatial", 1):
        return Refusal("its statistics are per position (spatial=0)")
    names = [site.input(i) for i in range(1, 5)]
    shape = site.graph.constant_shape(names[0])
    if shape is None or not all(site.graph.is_constant(n) for n in names):
        return Refusal("its statistics are not constant")
    if site.view != View.image(site.view.rank) or len(shape) != 1:
        return Refusal("its channels are not on the axis at hand")
    gamma, beta, mean, var = (site.float64(n) for n in names)
    epsilon = site.real("epsilon", float(np.float32(1e-5)))

    def scale() -> Array:
        return gamma() / np.sqrt(var() + epsilon)

    scale_of = Deferred(scale)
    shift_of = Deferred(lambda: beta() - mean() * scale_of())
    rank = len(site.view.spatial)
    return unary(site.input(0), channel_affine(scale_of, shift_of, shape[0], rank))
