"""Weights as integers with scales, in the file alone: what runs is the float model, nearly."""

from onnxfuse.compression.compress import compress
from onnxfuse.compression.result import (
    Compressed,
    CompressReport,
    CompressResult,
    LeftAlone,
    OutputError,
)

__all__ = [
    "CompressReport",
    "CompressResult",
    "Compressed",
    "LeftAlone",
    "OutputError",
    "compress",
]
