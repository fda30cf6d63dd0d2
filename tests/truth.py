"""Whole networks in float64: onnxfuse.reference for what it knows, plain numpy for the rest."""

import numpy as np
from onnx import helper, numpy_helper

from onnxfuse.reference import SUPPORTED, evaluate


def hard_sigmoid(x, alpha=0.2, beta=0.5):
    return np.clip(alpha * x + beta, 0, 1)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def clip(x, low=None, high=None, **bounds):
    return np.clip(x, bounds.get("min", low), bounds.get("max", high))


def nearest(x, roi, scales=None, sizes=None, **_):
    """Resize by whole factors."""
    for axis, scale in enumerate(scales):
        assert float(scale).is_integer()
        x = np.repeat(x, int(scale), axis=axis)
    return x


def max_pool(x, kernel_shape, strides, pads=(0, 0, 0, 0), **_):
    x = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel_shape, axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1]].max(axis=(4, 5))


ELSE = {
    "Clip": clip,
    "HardSigmoid": hard_sigmoid,
    "MaxPool": max_pool,
    "Pow": np.power,
    "Relu": lambda x: np.maximum(x, 0),
    "Resize": nearest,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softmax": softmax,
    "Sqrt": np.sqrt,
}


def run_in_float64(model, feeds):
    """The model's outputs, evaluated node by node in float64."""
    (opset,) = (o.version for o in model.opset_import if o.domain == "")
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer} | feeds
    values = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in values.items()}
    for node in model.graph.node:
        if node.op_type in SUPPORTED:
            values |= evaluate([node], values, opset)
        else:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            inputs = [values[n] if n else None for n in node.input]
            values[node.output[0]] = ELSE[node.op_type](*inputs, **attributes)
    return [values[output.name] for output in model.graph.output]
