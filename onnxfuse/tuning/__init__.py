"""Choosing by measurement: of several ways to make each region of a model, the fastest here."""

from onnxfuse.tuning.choosing import tune

__all__ = ["tune"]
