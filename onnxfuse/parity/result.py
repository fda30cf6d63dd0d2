"""What `check` finds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from onnxfuse.fold import Fold
from onnxfuse.serial import to_json

ULP_BINS = ("0", "1", "2-3", "4-7", "8-15", "16-63", "64-255", "256-4095", "4096 and more")
"""Distances in units in the last place, as `Closeness.ulps` counts them."""


@dataclass(frozen=True)
class Closeness:
    """How close two arrays of one shape and type are. NaN equals NaN, infinity itself.

    Attributes:
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the first array's number.
        relative_l2: Norm of the difference over the norm of the first array; of integers, booleans
            and strings the share of elements that differ.
        snr_db: Signal to noise ratio in decibels; None where nothing differs, or for no numbers.
        cosine: Cosine of the angle between the two; None for zeros and what is no number.
        top1: Share of rows with the same largest element, for outputs (N, classes).
        within: Share of elements with |a - b| <= 1e-5 + 1e-3 |a|, as numpy.isclose has it.
        ulps: Elements by distance in units in the last place, as `ULP_BINS`; empty for what is not
            floating.
    """

    max_abs: float
    max_rel: float
    relative_l2: float
    snr_db: float | None
    cosine: float | None
    top1: float | None
    within: float
    ulps: tuple[int, ...]


@dataclass(frozen=True)
class OutputParity:
    """One output of both models for one set of inputs on one provider.

    Attributes:
        provider: The provider, as users name it.
        inputs: What was computed from, in words.
        output: Name of the output.
        dtype: Its element type.
        shape: Its shape.
        closeness: The second model's output against the first's; None where shapes or types differ.
        first_error: Relative L2 distance of the first model from the truth; share for integers.
        second_error: The same of the second model.
        bound: By how much the second may be further from the truth than the first.
        reason: Why the two differ by more than rounding, or than is asked for; empty where they
            agree.
        judged: False where it is only shown: with `min_snr`, outputs that are not floating, and
            those for zeros, a constant, large and tiny numbers.
        float64_error: With `min_snr`, relative L2 distance of the second model from the first where
            both are evaluated in float64; None where they are not.
    """

    provider: str
    inputs: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    closeness: Closeness | None
    first_error: float
    second_error: float
    bound: float
    reason: str
    judged: bool = True
    float64_error: float | None = None

    @staticmethod
    def missing(provider: str, inputs: str, output: str, reason: str) -> OutputParity:
        """An output that the second model does not give, or not as the first does."""
        nothing = (math.nan, math.nan, 0.0)
        return OutputParity(provider, inputs, output, "", (), None, *nothing, reason)

    @property
    def agrees(self) -> bool:
        """True when rounding explains the difference, or it is no larger than is asked for."""
        return not self.reason


def type_name(array: NDArray[Any]) -> str:
    """What the element type of an array of the runtime is called."""
    return "string" if array.dtype.kind in "OUS" else str(array.dtype.name)


@dataclass(frozen=True)
class Meaning:
    """One tensor of both models, each evaluated in float64, so that no arithmetic is rounded.

    All outputs are among them, and that inner tensor which is off by most.

    What is left is the rounding of stored constants, and errors.

    Attributes:
        inputs: What was computed from, in words.
        tensor: Its name in the second model.
        error: Largest distance in any channel over what roundings of the constants explain there,
            so that 1 is the limit.
        channel: Where that is; None where it has no channels.
        agrees: True when the roundings explain it.
    """

    inputs: str
    tensor: str
    error: float
    channel: int | None
    agrees: bool


@dataclass(frozen=True)
class Divergence:
    """The first tensor where two models part.

    Attributes:
        tensor: Its name in the second model.
        made_by: The node of the second model that makes it, as "Conv 'name'".
        replaced: (name, operator) of the first model's nodes that it stands for.
        fold: The fold that made it, where the second model was folded here.
        channel: The channel where they part, or None.
        error: The distance there over what roundings explain.
        inputs: What was computed from, in words.
        provider: Where it was seen: a provider, or "float64".
        counterpart: Its name in the first model; empty where it has none there.
    """

    tensor: str
    made_by: str
    replaced: tuple[tuple[str, str], ...]
    fold: Fold | None
    channel: int | None
    error: float
    inputs: str
    provider: str
    counterpart: str = ""


@dataclass(frozen=True)
class CheckResult:
    """The comparison of two models.

    Attributes:
        first: What the first model is called.
        second: What the second is called.
        truth: What the two are compared with: "float64", or why it is something else.
        outputs: Every output, for every set of inputs, on every provider.
        meanings: Tensors in float64; empty where they cannot be evaluated so.
        divergence: Where they part, if that was asked for and they do.
        notes: What else there is to say, a line each.
        min_snr: The signal to noise ratio in decibels that was asked for; None where the models
            have to be equal but for rounding. With one, errors are distances from the first model
            as ONNX Runtime computes it, and meanings are not compared.
    """

    first: str
    second: str
    truth: str
    outputs: tuple[OutputParity, ...]
    meanings: tuple[Meaning, ...]
    divergence: Divergence | None = None
    notes: tuple[str, ...] = ()
    min_snr: float | None = None

    @property
    def agrees(self) -> bool:
        """True when rounding explains every difference, or each is as small as is asked for."""
        return all(o.agrees for o in self.outputs) and all(m.agrees for m in self.meanings)

    def to_json(self) -> str:
        """The result as JSON, keys as the attributes are named, and `agrees`."""
        return to_json({"agrees": self.agrees, **asdict(self)})
