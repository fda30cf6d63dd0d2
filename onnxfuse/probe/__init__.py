"""Convolutions that do not look like one: written as data movement, found by impulse response."""

from onnxfuse.probe.proof import Proof
from onnxfuse.probe.run import Load
from onnxfuse.probe.search import Effort, Probed, Probes, Search
from onnxfuse.probe.sizes import Setting, model_settings

__all__ = ["Effort", "Load", "Probed", "Probes", "Proof", "Search", "Setting", "model_settings"]
