"""How fast models are, measured in turn."""

from onnxfuse.bench.result import BenchResult, Interval, Timing

__all__ = ["BenchResult", "Interval", "Timing"]
