"""Reports: data, counts, and how they look in a terminal."""

from onnxfuse.report.report import Counts, Refused, Report, Tuned

__all__ = ["Counts", "Refused", "Report", "Tuned"]
