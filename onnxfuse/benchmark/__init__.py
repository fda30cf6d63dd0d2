"""How fast models are, measured in turn."""

from onnxfuse.benchmark.bench import bench
from onnxfuse.benchmark.result import BenchResult, Interval, Timing

__all__ = ["BenchResult", "Interval", "Timing", "bench"]
