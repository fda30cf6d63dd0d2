"""Models in int8: folded, then quantized by onnxruntime.quantization, and compared."""

from onnxfuse.quantization.quantize import QuantizeResult, quantize
from onnxfuse.quantization.report import Form, Quality, Quantized, QuantizeReport

__all__ = ["Form", "Quality", "QuantizeReport", "QuantizeResult", "Quantized", "quantize"]
