"""What a compression gives and reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import onnx

from onnxfuse import io
from onnxfuse.saving import Saved
from onnxfuse.serial import to_json


@dataclass(frozen=True)
class Compressed:
    """A weight that is stored in integers.

    Attributes:
        weight: Its name.
        layer: The layer that reads it; the first of several.
        shape: Its shape.
        bits: Bits of the integers: 2, 3, 4 or 8. The file has 4 for 3.
        block: Values that share a scale.
        scales: Type of the scales as stored: "float16" or "float32".
        snr: 10 log10(sum of w^2 / sum of (w - w')^2) in dB, w' being what the runtime computes;
            infinite where the two are equal.
        bytes_before: Bytes of the weight.
        bytes_after: Bytes of the integers, scales, zero points and channel shifts.
    """

    weight: str
    layer: str
    shape: tuple[int, ...]
    bits: int
    block: int
    scales: str
    snr: float
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class LeftAlone:
    """A layer's weight that stays as it is.

    Attributes:
        weight: Its name.
        layer: The layer that reads it; the first of several.
        reason: Why.
    """

    weight: str
    layer: str
    reason: str


@dataclass(frozen=True)
class OutputError:
    """How far the compressed model's outputs are from the float model's, on ONNX Runtime.

    Attributes:
        relative_l2: ||y - y'|| / ||y|| over all elements of all floating-point outputs.
        snr: The same in dB: -20 log10(relative_l2); infinite where outputs are equal.
        samples: How many sets of inputs were run.
        inputs: What they are: "given", or "random" with their shapes.
    """

    relative_l2: float
    snr: float
    samples: int
    inputs: str


@dataclass(frozen=True)
class CompressReport:
    """The report of one compression.

    Attributes:
        compressed: Every weight that is stored in integers, in the order of the model.
        left: Every layer's weight that is not, with the reason.
        bits: Bits that were asked for; None where a budget chose them.
        block: Most values in a block.
        budget: The relative L2 error of outputs that was allowed; None where none was given.
        folded: How many folds were made first; None where folding was left out.
        opset: Opset of the folded model, and of the compressed one.
        bytes_before: Bytes of the folded float model's file, data beside it included.
        bytes_after: Bytes of the compressed model's.
        error: How far outputs are off; or in a string why that was not measured.
    """

    compressed: tuple[Compressed, ...]
    left: tuple[LeftAlone, ...]
    bits: int | None
    block: int
    budget: float | None
    folded: int | None
    opset: tuple[int, int]
    bytes_before: int
    bytes_after: int
    error: OutputError | str

    @property
    def ratio(self) -> float:
        """How many times smaller the file is."""
        return self.bytes_before / self.bytes_after

    def to_json(self) -> str:
        """The report as JSON, keys as the attributes are named, and the ratio."""
        return to_json({**asdict(self), "ratio": self.ratio})


@dataclass(frozen=True)
class CompressResult(Saved):
    """A compressed model and the report on it.

    Attributes:
        model: The new model; the one given is not changed.
        report: What was compressed, what was left alone, sizes and errors.
        source: The new model, and where it keeps its weights.
    """

    model: onnx.ModelProto
    report: CompressReport
    source: io.Source = field(repr=False)

    def page(self, name: str = "model") -> str:
        """The report as a page of HTML."""
        from onnxfuse.report.html import compress_page

        return compress_page(self.report, name)
