"""Exact rewrites that are no folds into a single node; one file each."""

from onnxfuse.rewrites.denormals import flush_denormals

__all__ = ["flush_denormals"]
