"""Lift rules: an ONNX operator as a step of the algebra, or why it is none."""

from onnxfuse.lift.protected import protected
from onnxfuse.lift.site import Site, Step, View
from onnxfuse.lift.table import RULES, own_view

__all__ = ["RULES", "Site", "Step", "View", "own_view", "protected"]
