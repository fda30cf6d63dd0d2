"""Exact rewrites that are no folds into a single node; one file each.

`REWRITES`, by the names that users know, are tried in this order on every graph, in every pass,
before its folds are planned; `LAST` on a graph in which there is nothing left to fold, each where
those before it find nothing either. `TRIED` pay on some machines, for some sizes: they are made
where `tune` measures it.
"""

from collections.abc import Callable, Mapping
from functools import partial

from onnxfuse.cost import LANES
from onnxfuse.fold import Outcome
from onnxfuse.graph import Graph
from onnxfuse.rewrites.channels import remove_channels
from onnxfuse.rewrites.denormals import flush_denormals
from onnxfuse.rewrites.exponentials import write_softmaxes
from onnxfuse.rewrites.gates import distribute_gates
from onnxfuse.rewrites.lines import OPERATORS as MOVING
from onnxfuse.rewrites.merges import merge_convolutions
from onnxfuse.rewrites.moving import move_lines
from onnxfuse.rewrites.phases import split_phases
from onnxfuse.rewrites.pointwise import OPERATORS as ELEMENTWISE
from onnxfuse.rewrites.rewriting import recognise_activations
from onnxfuse.rewrites.shifts import layer_shifts
from onnxfuse.rewrites.shuffles import transpose_shuffles
from onnxfuse.rewrites.softmaxes import OPERATORS as SOFTMAXES
from onnxfuse.rewrites.softmaxes import turn_softmaxes
from onnxfuse.rewrites.splits import OPERATORS as CUTTING
from onnxfuse.rewrites.splits import split_convolutions
from onnxfuse.rewrites.subpixel import delay_shuffles
from onnxfuse.rewrites.upsampling import OPERATORS as RESIZING

Rewrite = Callable[[Graph, frozenset[str]], Outcome]

REWRITES: Mapping[str, Rewrite] = {
    "gates": distribute_gates,
    "activations": recognise_activations,
    "moves": move_lines,
    "softmaxes": turn_softmaxes,
}
LAST: Mapping[str, Rewrite] = {
    "channels": remove_channels,
    "phases": split_phases,
    "shuffles": delay_shuffles,
    "splits": split_convolutions,
    "merges": merge_convolutions,
    "shifts": layer_shifts,
}
APART = "splits sooner"
TRIED: Mapping[str, Rewrite] = {
    "softmaxes written out": write_softmaxes,
    "shuffles as transposes": transpose_shuffles,
    "phases sooner": partial(split_phases, margin=1.0),
    "merges sooner": partial(merge_convolutions, margin=1.0, blocks=(LANES,)),
    APART: partial(split_convolutions, always=True),
}
INSTEAD: Mapping[str, str] = {APART: "merges"}
"""By what is tried: the step of `LAST` that it would undo, and that is left out then."""
OPERATORS = RESIZING | MOVING | SOFTMAXES | CUTTING | ELEMENTWISE.keys()
"""Operators that they rewrite."""

__all__ = [
    "APART",
    "INSTEAD",
    "LAST",
    "OPERATORS",
    "REWRITES",
    "TRIED",
    "Rewrite",
    "flush_denormals",
]
