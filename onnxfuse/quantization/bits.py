"""How many bits weights get."""

from __future__ import annotations

from onnxfuse.quantization.saturation import saturates

CHOICES = (7, 8)


def weight_bits(asked: int | None) -> tuple[int, str]:
    """7 or 8 bits, and why.

    With 7 bits, two products with uint8 add up to 255 * 64 * 2 = 32,640 at most, which int16 holds.
    A weight that stands out in its channel may use the eighth: see `scales`.

    Args:
        asked: What the user wants, or None for what suits this machine.
    """
    if asked is not None:
        return asked, "as asked for"
    if saturates():
        return 7, "ONNX Runtime's sums of 8-bit products saturate on this machine"
    return 8, "ONNX Runtime's sums of 8-bit products do not saturate on this machine"
