"""Models with one layer, or a few, to be compressed."""

import numpy as np
from onnx import TensorProto

from tests.lift.building import Builder, same

DTYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def chain(opset=21, channels=48, elem_type=TensorProto.FLOAT, seed=0, **settings):
    """Two Convs with a Relu between them: weights named "first" and "second"."""
    b = Builder(opset, elem_type, seed)
    x = b.input("n", channels, 6, 6)
    weights = [b.random(channels, channels, 3, 3, name=name) for name in ("first", "second")]
    x = b.op("Conv", x, weights[0], b.random(channels), pads=same((3, 3)))
    return b.model(b.op("Conv", b.op("Relu", x), weights[1], output="y", pads=[1] * 4), **settings)


def picture(channels=48, size=6, seed=0, dtype=np.float32):
    return {
        "x": np.random.default_rng(seed)
        .standard_normal((1, channels, size, size), dtype=np.float32)
        .astype(dtype)
    }
