"""Exact rewrites that are no folds into a single node; one file each.

`REWRITES` are tried in this order on every graph, in every pass, before its folds are planned.
"""

from collections.abc import Callable

from onnxfuse.fold import Outcome
from onnxfuse.graph import Graph
from onnxfuse.rewrites.denormals import flush_denormals
from onnxfuse.rewrites.gates import distribute_gates
from onnxfuse.rewrites.pointwise import OPERATORS
from onnxfuse.rewrites.rewriting import recognise_activations
from onnxfuse.rewrites.subpixel import delay_shuffles

REWRITES: tuple[Callable[[Graph, frozenset[str]], Outcome], ...] = (
    distribute_gates,
    recognise_activations,
    delay_shuffles,
)

__all__ = ["OPERATORS", "REWRITES", "flush_denormals"]
