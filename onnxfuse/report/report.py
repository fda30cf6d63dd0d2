"""What `optimize` reports: folds, refusals, and counts before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from onnxfuse.certify import Certificate
from onnxfuse.fold import Fold

if TYPE_CHECKING:
    from onnxfuse.benchmark.gate import Gate


@dataclass(frozen=True)
class Refused:
    """A node that stayed although its operator can fold.

    Attributes:
        node: Its name, or that of its first output.
        operator: Its operator.
        reason: Why.
    """

    node: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Counts:
    """The size of a model.

    Attributes:
        nodes: Nodes in all, those of nested bodies included.
        operators: Nodes by operator.
        macs: Multiply-adds of Conv, ConvTranspose, Gemm and MatMul in one run, symbolic
            dimensions taken as the report's `assumed` sizes.
        parameter_bytes: Bytes of the initializers.
    """

    nodes: int
    operators: Mapping[str, int]
    macs: int
    parameter_bytes: int


@dataclass(frozen=True)
class Tuned:
    """A region that is made in another way than by default, since that is faster here.

    Attributes:
        tensors: What it makes.
        way: How: "as it was", or as it is optimized "without" one of the steps.
        ratio: The default's time over this one's, with a few nodes around the region.
    """

    tensors: tuple[str, ...]
    way: str
    ratio: float


@dataclass(frozen=True)
class Report:
    """The report of one optimization.

    Attributes:
        folds: Every fold, in the order of the graph.
        refusals: Every refusal.
        before: The model as it was.
        after: The model as it is now.
        assumed: Sizes that symbolic dimensions were given to count multiply-adds.
        flushed: How many subnormal numbers were set to zero in weights that nothing was folded
            into, by weight.
        tuned: Regions that are made in another way than by default, where that was measured.
        gate: How fast the new model is here, or why that was not measured; None where nobody asked.
    """

    folds: tuple[Fold, ...]
    refusals: tuple[Refused, ...]
    before: Counts
    after: Counts
    assumed: Mapping[str, int]
    flushed: Mapping[str, int] = field(default_factory=dict)
    tuned: tuple[Tuned, ...] = ()
    gate: Gate | str | None = None

    @property
    def denormals(self) -> int:
        """How many subnormal numbers were set to zero in all."""
        return sum(self.flushed.values()) + sum(fold.flushed for fold in self.folds)

    @property
    def worst(self) -> Certificate:
        """The certificate nearest to what it may be off by; of no fold, one without an error."""
        certificates = [fold.certificate for fold in self.folds]
        nothing = Certificate(0.0, ())
        return max(certificates, key=lambda c: c.error / c.allowed, default=nothing)

    def to_json(self) -> str:
        """The report as JSON, keys as the attributes are named."""
        return json.dumps(asdict(self), indent=2)
