"""PyTorch modules to ONNX models, checked against PyTorch. Only what runs needs torch installed."""

from onnxfuse.exporter.export import ExportResult, export
from onnxfuse.exporter.parity import Parity

__all__ = ["ExportResult", "Parity", "export"]
