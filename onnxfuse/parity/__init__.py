"""Whether two models compute the same, and where they part."""

from onnxfuse.parity.check import check
from onnxfuse.parity.result import CheckResult, Closeness, Divergence, Meaning, OutputParity

__all__ = ["CheckResult", "Closeness", "Divergence", "Meaning", "OutputParity", "check"]
