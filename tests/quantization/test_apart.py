"""Parts of what a convolution makes have ranges of their own."""

import numpy as np
import pytest

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import run
from tests.quantization.building import QUICK, images, operators

ENOUGH = 30  # decibels; with one range for both, the smaller part has about 0


def heads(together):
    """Scores, and boxes that are a thousand times as large, by one Conv or by two."""
    b = Builder()
    x = b.op("Relu", b.conv(b.input("n", 3, 8, 8), 3, 16, (3, 3), pads=[1] * 4))
    weights = [b.values(count, 16, 1, 1) * size for count, size in ((2, 1e-2), (4, 10.0))]
    if together:
        y = b.op("Conv", x, b.constant(np.concatenate(weights)))
        b.ops("Split", y, b.constant([2, 4]), outputs=["scores", "boxes"], axis=1)
    else:
        for name, weight in zip(("scores", "boxes"), weights, strict=True):
            b.op("Conv", x, b.constant(weight), output=name)
    return b.model("scores", "boxes")


@pytest.mark.parametrize("equalize", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_heads_of_different_size(together, equalize):
    model, x = heads(together), {"x": images()}
    made = onnxfuse.quantize(model, x, equalize=equalize, **QUICK).model
    assert "Split" not in operators(made)
    for found, expected in zip(run(made, x), run(model, x), strict=True):
        noise = np.square(found - expected, dtype=np.float64).sum()
        signal = np.square(expected, dtype=np.float64).sum()
        assert 10 * np.log10(signal / noise) > ENOUGH
