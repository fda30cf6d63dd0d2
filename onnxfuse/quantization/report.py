"""What `quantize` reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from onnxfuse.benchmark.result import Interval
from onnxfuse.equalization import Equalized
from onnxfuse.report.report import Refused
from onnxfuse.serial import to_json


@dataclass(frozen=True)
class Quality:
    """How near a model's outputs are to those of the float model, over all samples.

    Attributes:
        accuracy: Share of samples whose largest output is that of their class; None without labels
            or class scores.
        snr: 10 log10(sum y^2 / sum (y' - y)^2) in dB over all float outputs, y those of the float
            model; infinite where they are equal; None for that model itself, or where the shapes
            of the outputs differ.
        error: The relative L2 distance, sqrt(sum (y' - y)^2 / sum y^2); None likewise.
    """

    accuracy: float | None
    snr: float | None
    error: float | None


@dataclass(frozen=True)
class Form:
    """One form of the model, and how good it is.

    Attributes:
        name: Such as "float, folded" or "int8, folded".
        file_bytes: Size of the file, and of the data beside it.
        quality: Its outputs against those of the float model; None where it does not run.
        latency: Median seconds of a run; None where it does not run.
        ratio: The folded float model's time over this one's, round by round: above 1 it is faster.
        failure: Why it does not run, or could not be made; empty where it could.
    """

    name: str
    file_bytes: int | None = None
    quality: Quality | None = None
    latency: Interval | None = None
    ratio: Interval | None = None
    failure: str = ""


@dataclass(frozen=True)
class Quantized:
    """How many nodes of an operator compute in int8.

    Attributes:
        operator: The operator.
        count: Nodes of it with int8 inputs.
        total: Nodes of it.
    """

    operator: str
    count: int
    total: int


@dataclass(frozen=True)
class QuantizeReport:
    """The report of one quantization.

    Attributes:
        forms: The model in each form, the float one first; empty where nothing was compared.
        operators: Nodes with weights, by operator, and how many of them compute in int8.
        left: Nodes that stay float, and why.
        equalized: The nodes that were changed first, each with its proof: layers in two parts, and
            nodes with other scales of channels or other biases.
        method: How ranges follow from samples.
        weight_bits: 7 or 8.
        weight_bits_reason: Why.
        calibration: Where the samples come from that ranges were taken from.
        calibrated: How many runs that were.
        evaluation: Where the samples come from that the forms are compared on.
        evaluated: How many runs that were.
        threads: Threads within an operator where latency was measured; None for the runtime's
            choice.
        machine: Processor, instructions, operating system and versions, by name.
        notes: What else there is to say, a line each.
    """

    forms: tuple[Form, ...]
    operators: tuple[Quantized, ...]
    left: tuple[Refused, ...]
    equalized: tuple[Equalized, ...]
    method: str
    weight_bits: int
    weight_bits_reason: str
    calibration: str
    calibrated: int
    evaluation: str
    evaluated: int
    threads: int | None = None
    machine: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The report as JSON, keys as the attributes are named."""
        return to_json(asdict(self))
