"""Scales of channels moved between layers, exactly, so that eight bits hold them better."""

from onnxfuse.equalization.equalize import Equalized, EqualizeResult, equalize

__all__ = ["EqualizeResult", "Equalized", "equalize"]
