"""Whether int8 sums saturate, against arithmetic and against the processor's instructions."""

import numpy as np
import onnx

from onnxfuse.benchmark.machine import instructions
from onnxfuse.quantization.saturation import _largest_products, saturates
from onnxfuse.runtime import load_model


def test_the_model_gives_255_exactly():
    """64 products of 255 and 127, over a scale of 64 * 127, by the definition of QLinearConv."""
    held = {t.name: onnx.numpy_helper.to_array(t) for t in _largest_products().graph.initializer}
    total = np.einsum("oi,i->o", held["w"][:, :, 0, 0].astype(np.int64), np.full(64, 255))
    assert set(np.rint(total / float(held["y_scale"]))) == {255}


def test_it_can_be_run():
    with load_model(_largest_products()) as loaded:
        assert loaded.outputs == ("y",)


def test_processors_with_dot_products_do_not_saturate():
    if any(name in instructions() for name in ("VNNI", "AMX", "dot products")):
        assert not saturates()
    elif instructions() == "AVX2":
        assert saturates()
