"""Weights as integers with scales, in the file alone: what runs is the float model, nearly."""

from onnxfuse.compression.compress import CompressResult, compress
from onnxfuse.compression.result import Compressed, CompressReport, LeftAlone, OutputError

__all__ = [
    "CompressReport",
    "CompressResult",
    "Compressed",
    "LeftAlone",
    "OutputError",
    "compress",
]
