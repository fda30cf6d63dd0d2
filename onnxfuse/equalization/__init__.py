"""Models that eight bits hold better, and that compute the same: scales, biases and outliers."""

from onnxfuse.equalization.equalize import (
    SCALED,
    SHIFTED,
    SPLIT,
    Equalized,
    EqualizeResult,
    equalize,
)

__all__ = ["SCALED", "SHIFTED", "SPLIT", "EqualizeResult", "Equalized", "equalize"]
