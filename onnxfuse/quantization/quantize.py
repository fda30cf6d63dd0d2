"""`quantize`: a model folded, then brought to int8, and both compared with what it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from onnxfuse import io
from onnxfuse.benchmark import machine
from onnxfuse.calibration import Pixels, Samples, read_samples
from onnxfuse.equalization import Equalized
from onnxfuse.equalization import equalize as equalized_channels
from onnxfuse.errors import ModelError
from onnxfuse.pipeline import names_given, optimize_with
from onnxfuse.quantization import bits
from onnxfuse.quantization.comparing import (
    FLOAT,
    FLOAT_FOLDED,
    INT8,
    INT8_EQUALIZED,
    INT8_FOLDED,
    Failure,
    as_source,
    compared,
)
from onnxfuse.quantization.delicate import delicate
from onnxfuse.quantization.dense import dense
from onnxfuse.quantization.exclusions import integer_operator, kept_tensors, left_float
from onnxfuse.quantization.finite import infinite
from onnxfuse.quantization.library import (
    METHODS,
    Method,
    Recipe,
    Tell,
    preprocessed,
    quantized,
    taken,
)
from onnxfuse.quantization.naming import named
from onnxfuse.quantization.plain import plain
from onnxfuse.quantization.raising import is_half, raised
from onnxfuse.quantization.report import Form, Quantized, QuantizeReport
from onnxfuse.quantization.restoring import restored
from onnxfuse.report.report import Refused, Report
from onnxfuse.rewrites import APART
from onnxfuse.runtime import Loaded, load_model
from onnxfuse.saving import Saved

_AUDIBLE = 0.5  # decibels
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class QuantizeResult(Saved):
    """A model in int8, and the report on it.

    Attributes:
        model: The new model; the one given is not changed.
        report: How it compares with the model given, and what stayed float.
        folding: What was folded before.
        source: The new model, and how it is written.
    """

    model: onnx.ModelProto
    report: QuantizeReport
    folding: Report = field(repr=False)
    source: io.Source = field(repr=False)

    def page(self, name: str = "model") -> str:
        """The report as a page of HTML."""
        from onnxfuse.report.html import quantize_page

        return quantize_page(self.report, name)


def quantize(
    model: Any,
    calibration: Any,
    *,
    evaluation: Any = None,
    method: Method = "minmax",
    weight_bits: int | None = None,
    equalize: bool = True,
    keep: Iterable[str] = (),
    skip: Iterable[str] = (),
    sizes: Mapping[str, int] | None = None,
    pixels: Pixels | None = None,
    threads: int | None = None,
    compare: bool = True,
    progress: Tell | None = None,
) -> QuantizeResult:
    """Folds a model and brings it to int8 with onnxruntime.quantization (static QDQ, per channel).

    Activations are uint8, weights int8. Samples say which values tensors have. Parts of what a Conv
    makes become Convs by themselves, so that each has a range of its own.

    Args:
        model: A float model: a path, an onnx.ModelProto, an onnx_graphsurgeon.Graph or a
            torch.onnx.ONNXProgram.
        calibration: Samples: see `onnxfuse.calibration.read_samples`.
        evaluation: Samples that the forms are compared on; default: those of the calibration.
        method: "minmax" takes the whole range of a tensor; "percentile" leaves out the outermost
            values, "entropy" what costs the least information.
        weight_bits: 7 or 8; default: 7 where ONNX Runtime's sums of 8-bit products saturate on this
            machine, else 8. With 7 a weight that stands out in its channel still uses the eighth,
            as far as no two products can saturate.
        equalize: Whether the scales of channels are balanced between layers first.
        keep: Names of nodes, or of tensors with the nodes that make and read them, that stay float.
        skip: What is not folded, as `optimize` takes it.
        sizes: Extents of symbolic dimensions by name, for images.
        pixels: What becomes of the pixels of images.
        threads: Threads within an operator where latency is measured; None for the runtime's
            choice.
        compare: Whether the float model, int8 of its training form, of the folded one and of the
            equalized one are compared.
        progress: Called with what is being done, how much of it is done, and of how much.

    Returns:
        The new model and its report.

    Raises:
        ModelError: The model, the samples or an option cannot be used, or nothing in it can be
            quantized.
        CertificateError: If a fold does not agree with the nodes it replaces.
        RunError: The model does not run on a sample.
    """
    _check(method, weight_bits, threads)
    tell = progress or (lambda step, done, total: None)
    kept, skipped = names_given(keep, "keep"), names_given(skip, "skip")
    tell("reading", 0, None)
    with load_model(model) as loaded:
        if (operator := integer_operator(loaded.source.model)) is not None:
            raise ModelError(f"{loaded.name}: it is quantized already: it has {operator} nodes")
        job = _Job(loaded, kept, tell)
        samples = read_samples(calibration, loaded.inputs, sizes=sizes, pixels=pixels)
        others = samples
        if evaluation is not None:
            others = read_samples(evaluation, loaded.inputs, sizes=sizes, pixels=pixels)
        count, reason = bits.weight_bits(weight_bits)
        recipe = Recipe(method, count)
        inner = job.tensors & {name for n in loaded.source.model.graph.node for name in n.output}
        folded = optimize_with(
            APART, model, skip=skipped, keep=inner, progress=lambda step: tell(step, 0, None)
        )
        prepared = job.prepared(folded.source)
        best: onnx.ModelProto = prepared
        equalized: tuple[Equalized, ...] = ()
        if equalize:
            found = equalized_channels(
                prepared,
                samples,
                weight_bits=count,
                keep=job.tensors,
                progress=lambda step: tell(step, 0, None),
            )
            best, equalized = found.model, found.nodes
        made, left = job.int8(best, samples, recipe)
        source = as_source(made, folded.source)
        report = QuantizeReport(
            forms=(),
            operators=_operators(made),
            left=tuple(left),
            equalized=equalized,
            method=method,
            weight_bits=count,
            weight_bits_reason=reason,
            calibration=samples.name,
            calibrated=len(samples),
            evaluation=others.name,
            evaluated=len(others),
            threads=threads,
            machine=machine.describe(),
            notes=tuple(_notes(loaded)),
        )
        if compare:
            forms: dict[str, Any] = {
                FLOAT: model,
                FLOAT_FOLDED: folded.source,
                INT8: job.training(samples, recipe),
                INT8_FOLDED: source,
            }
            if equalized:
                plain, _ = job.int8(prepared, samples, recipe)
                forms[INT8_FOLDED] = as_source(plain, folded.source)
                forms[INT8_EQUALIZED] = source
            made_forms, notes = compared(forms, others, threads=threads, tell=tell)
            notes += _worse(made_forms)
            report = replace(report, forms=tuple(made_forms), notes=(*report.notes, *notes))
    return QuantizeResult(made, report, folded.report, source)


class _Job:
    """One model to quantize, in several forms."""

    def __init__(self, loaded: Loaded, keep: frozenset[str], tell: Tell) -> None:
        self.loaded, self.tell = loaded, tell
        model = loaded.source.model
        self.tensors = kept_tensors(model, keep, loaded.name)
        self.read = self.tensors & keep | {v.name for v in model.graph.input if v.name in keep}

    def int8(
        self, model: onnx.ModelProto, samples: Samples, recipe: Recipe
    ) -> tuple[onnx.ModelProto, list[Refused]]:
        """A prepared model in int8, and what stays float.

        Raises:
            ModelError: Nothing in it can be quantized, the library cannot do it, or a tensor is not
                finite.
        """
        left = self.left(model, samples)
        recipe = replace(recipe, exclude=tuple(refused.node for refused in left))
        made = model
        if nodes := taken(model, recipe.exclude):
            self.check_finite(model, nodes, samples)
            made = restored(quantized(model, samples, recipe, self.tell), model)
        if integer_operator(made) is None:
            names = ", ".join(WEIGHTED)
            raise ModelError(
                f"{self.loaded.name}: nothing in it can be quantized: no {names} with a constant "
                "weight that may change"
            )
        return made, [refused for refused in left if refused.operator in WEIGHTED]

    def training(self, samples: Samples, recipe: Recipe) -> io.Source | Failure:
        """The model as it was in int8, prepared as the library recommends; or why not."""
        try:
            model = preprocessed(self.prepared(io.read(self.loaded.path)))
            plain(model, self.tensors | self.read)  # what it made of products and sums
            named(model)
            left = self.left(model, samples)
            recipe = replace(recipe, exclude=tuple(refused.node for refused in left))
            label = " the training form"
            made = quantized(model, samples, recipe, self.tell, label=label)
        except ModelError as error:
            return Failure(str(error))
        return as_source(made, self.loaded.source)

    def left(self, model: onnx.ModelProto, samples: Samples) -> list[Refused]:
        """What stays float of a prepared model."""
        total = len(samples)
        found = delicate(model, samples, lambda done: self.tell("ranges", done, total))
        return left_float(model, self.tensors, self.read, found)

    def check_finite(
        self, model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], samples: Samples
    ) -> None:
        """Raises ModelError where what nodes read or make is not finite on one of the samples."""
        total = len(samples)
        found = infinite(model, nodes, samples, lambda done: self.tell("checking", done, total))
        if found is not None:
            raise ModelError(
                f"{samples.name}: run {found.run}: {found.tensor!r} is not finite, and 8 bits hold "
                "no such numbers"
            )

    def prepared(self, source: io.Source) -> onnx.ModelProto:
        """A copy with all data in it, that the library can quantize, with nodes named."""
        held = onnx.ModelProto()
        held.CopyFrom(source.model)
        whole = replace(source, model=held)
        whole.embed()
        dense(held, self.loaded.name)
        model = raised(held, self.loaded.name)
        plain(model, self.tensors | self.read)
        named(model)
        return model


def _check(method: str, weight_bits: int | None, threads: int | None) -> None:
    if method not in METHODS:
        raise ModelError(f"method {method!r} is none of {', '.join(METHODS)}")
    if weight_bits not in (None, *bits.CHOICES):
        raise ModelError(f"weight_bits is 7 or 8, not {weight_bits}")
    if threads is not None and threads < 1:
        raise ModelError(f"threads must be at least 1, not {threads}")


def _operators(model: onnx.ModelProto) -> tuple[Quantized, ...]:
    """The nodes with weights, and how many of them read only what was int8."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in WEIGHTED and node.domain in ("", "ai.onnx"):
            total[node.op_type] += 1
            inputs = [made.get(name) for name in node.input[:2]]
            count[node.op_type] += inputs == ["DequantizeLinear"] * 2
    return tuple(Quantized(name, count[name], total[name]) for name in sorted(total))


def _worse(forms: Sequence[Form]) -> list[str]:
    """What to say where equalization did not help."""
    snr = {form.name: form.quality.snr for form in forms if form.quality is not None}
    plain, equalized = snr.get(INT8_FOLDED), snr.get(INT8_EQUALIZED)
    if plain is None or equalized is None or equalized >= plain - _AUDIBLE:
        return []
    return [f"without equalization (--no-equalize) it is {plain - equalized:.1f} dB nearer"]


def _notes(loaded: Loaded) -> list[str]:
    if is_half(loaded.source.model):
        return ["the model is float16: on the CPU, ONNX Runtime computes its int8 form in float32"]
    return []
