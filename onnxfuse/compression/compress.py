"""Compression: fold, put weights into integers, raise the opset, measure, report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from onnxfuse import io
from onnxfuse.affine import Refusal
from onnxfuse.calibration import Pixels, read_samples
from onnxfuse.compression.budget import CHOICES, Option, State, chosen_path
from onnxfuse.compression.kernel import Kernel, quantized
from onnxfuse.compression.lower import OPSETS, STORED, Lowered, integer_type, is_known, put_in
from onnxfuse.compression.measuring import Reference, outputs_of, runs_opset
from onnxfuse.compression.result import (
    Compressed,
    CompressReport,
    CompressResult,
    LeftAlone,
    OutputError,
)
from onnxfuse.compression.weights import Weight, find_weights, graphs_of
from onnxfuse.errors import ModelError
from onnxfuse.hollow import Emptied, hollow, payload_bytes
from onnxfuse.io.encoding import encode
from onnxfuse.messages import all_names
from onnxfuse.opsets import raise_opset
from onnxfuse.pipeline import names_given, optimize
from onnxfuse.runtime import Feeds, RunError, load_model
from onnxfuse.shapes import default_opset

BITS = tuple(STORED)
BLOCKS = (16, 32, 64, 128, 256)
LARGEST_CHANGE = 1e-3, 3e-2
"""Relative L2 distance of outputs at a newer opset that is still rounding, in float32 and with
weights in float16. Runtimes compute most operators by the same kernels, whatever their opset: as a
rule it is zero. An operator that means something else there is off by far more."""

Scales = Literal["float16", "float32"]
Progress = Callable[[str], None]


def compress(
    model: Any,
    *,
    bits: int | None = None,
    block: int = 32,
    zero_point: bool = False,
    channel_shift: bool = False,
    scales: Scales = "float16",
    budget: float | None = None,
    samples: Any = None,
    sizes: Mapping[str, int] | None = None,
    pixels: Pixels | None = None,
    keep: Iterable[str] = (),
    fold: bool = True,
    progress: Progress | None = None,
) -> CompressResult:
    """Stores the weights of Conv, ConvTranspose, Gemm and MatMul as integers with scales.

    Each block of input channels (of each output channel and tap) has a scale of its own, by least
    squares: DSConv's kernel distribution shift (Gennari do Nascimento, Fawcett, Prisacariu, ICCV
    2019). The file holds ONNX's DequantizeLinear with blocks, which any runtime of that opset runs:
    21 (25 for 2 bits); older models are raised to it. ONNX Runtime computes the weights in each
    run; or once, when it loads the model, with the session option session.disable_quant_qdq=1.
    Without it, it may round what goes into a MatMul or Gemm to 8 bits (MatMulNBits); errors are
    measured that way.

    Args:
        model: A path, an onnx.ModelProto, an onnx_graphsurgeon.Graph or a torch.onnx.ONNXProgram.
        bits: Bits of the integers: 2, 3, 4 or 8; default 4. 3 are stored in 4, as ONNX has no type
            for them: the file is as for 4.
        block: Most values in a block: 16, 32, 64, 128 or 256.
        zero_point: Whether blocks get a zero point of so many bits too.
        channel_shift: Whether output channels get a scale and a shift (channel distribution shift).
        scales: How scales are stored. "float16" becomes float32 for weights whose scales it would
            lose.
        budget: In place of `bits`: the relative L2 error that outputs may have. Each weight gets 2,
            4 or 8 bits, or stays float.
        samples: What outputs are compared on: see `onnxfuse.calibration.read_samples`; default: one
            set of random numbers.
        sizes: Extents of symbolic dimensions by name, for images.
        pixels: What becomes of the pixels of images.
        keep: Weights, or layers, that stay float, by their names in the report.
        fold: Whether to fold the model first, as `optimize` does.
        progress: Called with a word on each step as it begins.

    Returns:
        The new model and its report.

    Raises:
        ModelError: If the model cannot be used or raised to the opset, or an option names what is
            not there; with a budget, also if the model cannot be run.
        CertificateError: If a fold does not agree with the nodes it replaces.
    """
    _check(bits, block, scales, budget)
    tell = progress or (lambda step: None)
    folded = None
    if fold:
        optimized = optimize(model, progress=progress)
        source, folded = optimized.source, len(optimized.report.folds)
    else:
        tell("reading")
        source = io.read(model)
    settings = _Settings(block, zero_point, channel_shift, np.dtype(scales))
    chosen: list[Feeds] | None = None
    if samples is not None:
        with load_model(source, source.name) as loaded:
            chosen = list(read_samples(samples, loaded.inputs, sizes=sizes, pixels=pixels))
    run = _Run(source, names_given(keep, "keep"), settings, chosen, tell)
    made = run.within(budget) if budget is not None else run.at(bits or 4)
    report = CompressReport(
        compressed=made.compressed,
        left=tuple(run.left),
        bits=None if budget is not None else bits or 4,
        block=block,
        budget=budget,
        folded=folded,
        opset=(default_opset(source.model), default_opset(made.source.model)),
        bytes_before=file_bytes(source),
        bytes_after=file_bytes(made.source),
        error=made.error,
    )
    return CompressResult(made.source.model, report, made.source)


def file_bytes(source: io.Source) -> int:
    """Bytes of a model's file and of the data beside it, but for what aligns that."""
    if not source.external:
        return encode(source.model)[0]
    emptied: Emptied = []
    skeleton = hollow(source.model, emptied)
    return encode(skeleton)[0] + sum(payload_bytes(tensor) for tensor, _ in emptied)


def _check(bits: int | None, block: int, scales: str, budget: float | None) -> None:
    """Raises ModelError for options that are not among what there is."""
    for name, value, choices in (("bits", bits, BITS), ("block", block, BLOCKS)):
        is_default = name == "bits" and value is None
        if not is_default and not (isinstance(value, int) and value in choices):
            raise ModelError(f"{name} is {value!r}, not one of {', '.join(map(str, choices))}")
    if scales not in ("float16", "float32"):
        raise ModelError(f"scales is {scales!r}, not float16 or float32")
    if budget is not None:
        if bits is not None:
            raise ModelError(f"budget {budget!r} goes without bits")
        if not isinstance(budget, (int, float)) or not 0 <= budget < math.inf:
            raise ModelError(f"budget {budget!r} is no relative error")


@dataclass(frozen=True)
class _Settings:
    """How weights are put into integers."""

    block: int
    zero_point: bool
    channel_shift: bool
    scales: np.dtype[Any]


@dataclass(frozen=True)
class _Made:
    """A compressed model, its weights and how far its outputs are off."""

    source: io.Source
    compressed: tuple[Compressed, ...]
    error: OutputError | str


class _Run:
    """One compression of one model."""

    def __init__(
        self,
        source: io.Source,
        keep: frozenset[str],
        settings: _Settings,
        samples: Sequence[Mapping[str, NDArray[Any]]] | None,
        tell: Progress,
    ) -> None:
        self.source, self.settings, self.tell = source, settings, tell
        self.weights, self.left = find_weights(source.model, keep)
        self.reference = self._referred(samples)
        self.changes: dict[int, float] = {}

    def at(self, bits: int) -> _Made:
        """The model with all weights in so many bits."""
        self.tell("quantizing")
        integer_type(STORED[bits])
        found = self._quantized(self.weights, bits)
        kernels: dict[Weight, Kernel] = {}
        for weight, kernel in zip(self.weights, found, strict=True):
            if isinstance(kernel, Refusal):
                self._leave(weight, kernel.reason)
            else:
                kernels[weight] = kernel
        return self._made(kernels)

    def within(self, budget: float) -> _Made:
        """The model with bits of each weight chosen, so that its outputs stay within an error."""
        if not self.weights:
            return self._made({})
        if isinstance(self.reference, str):
            raise ModelError(f"a budget needs a model that can be run: {self.reference}")
        inner = [weight for weight in self.weights if weight.place]
        for weight in inner:
            self._leave(weight, "it is in a body, where a budget does not measure it")
        weights = [weight for weight in self.weights if not weight.place]
        kernels: list[dict[int, Kernel]] = [{} for _ in weights]
        reasons: list[str] = [""] * len(weights)
        for bits in filter(is_known, CHOICES):
            self.tell(f"quantizing to {bits} bits")
            for index, kernel in enumerate(self._quantized(weights, bits)):
                if isinstance(kernel, Refusal):
                    reasons[index] = kernel.reason
                else:
                    kernels[index][bits] = kernel
        for weight, found, reason in zip(weights, kernels, reasons, strict=True):
            if not found:
                self._leave(weight, reason)
        chosen = [(w, k) for w, k in zip(weights, kernels, strict=True) if k]
        options = [_options(weight, found) for weight, found in chosen]
        own = [weight for weight, _ in chosen]
        try:
            path = chosen_path(self.source, self.reference, own, options, budget, self.tell)
        except RunError as error:
            raise ModelError(f"a budget needs outputs that can be compared: {error}") from error
        for state in path:
            made = self._made(self._picked(chosen, options, state))
            if made.compressed and isinstance(made.error, str):
                raise ModelError(f"a budget needs a result that can be run: {made.error}")
            if isinstance(made.error, OutputError) and made.error.relative_l2 <= budget:
                break
        taken = {compressed.weight for compressed in made.compressed}
        for weight in own:
            if weight.name not in taken:
                self._leave(weight, "the budget keeps it float")
        return made

    def _picked(
        self,
        chosen: Sequence[tuple[Weight, Mapping[int, Kernel]]],
        options: Sequence[Sequence[Option]],
        state: State,
    ) -> dict[Weight, Kernel]:
        picked: dict[Weight, Kernel] = {}
        for (weight, kernels), ways, taken in zip(chosen, options, state, strict=True):
            bits = ways[taken].bits
            if bits is not None:
                picked[weight] = kernels[bits]
        return picked

    def _referred(self, samples: Sequence[Mapping[str, NDArray[Any]]] | None) -> Reference | str:
        """The float model's outputs, or why there are none."""
        if not self.weights:
            return "nothing is compressed"
        self.tell("running the float model")
        try:
            return Reference(self.source, samples)
        except (ModelError, RunError) as error:
            if samples is not None:
                raise
            return str(error)

    def _leave(self, weight: Weight, reason: str) -> None:
        self.left.append(LeftAlone(weight.name, weight.layer_name, reason))

    def _quantized(self, weights: Sequence[Weight], bits: int) -> list[Kernel | Refusal]:
        """Kernels of weights, or why there are none; one that takes no less than before is none."""

        def one(weight: Weight) -> Kernel | Refusal:
            kernel = quantized(
                self.source.load(weight.tensor),
                weight.layout(self.settings.block),
                bits,
                zero_point=self.settings.zero_point,
                channel_shift=self.settings.channel_shift,
                scales=self.settings.scales,
            )
            if isinstance(kernel, Refusal):
                return kernel
            before, after = payload_bytes(weight.tensor), Lowered(weight.name, kernel, set()).size()
            if after >= before:
                return Refusal(f"it would take {after} bytes in place of {before}")
            return kernel

        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(one, weights))

    def _made(self, kernels: Mapping[Weight, Kernel]) -> _Made:
        """The model with kernels in the place of weights, measured."""
        if not kernels:
            return _Made(self.source, (), "nothing is compressed")
        self.tell("raising the opset")
        bits, opset = max(
            ((kernel.bits, OPSETS[STORED[kernel.bits]]) for kernel in kernels.values()),
            key=lambda pair: pair[1],
        )
        model = onnx.ModelProto()
        model.CopyFrom(self.source.model)
        raise_opset(model, opset, f"storing {bits} bits")
        source = replace(self.source, model=model)
        self._check_raised(source)
        names = set(all_names(model.graph))
        by_place: dict[int, list[Lowered]] = {}
        for weight, kernel in kernels.items():
            made = Lowered(weight.name, kernel, names)
            by_place.setdefault(weight.place, []).append(made)
        graphs = list(graphs_of(model.graph))
        for place in sorted(by_place, reverse=True):  # a body before the graph around it moves
            put_in(graphs[place], by_place[place])
        compressed = tuple(
            _compressed(weight, kernel, self.source) for weight, kernel in kernels.items()
        )
        self.tell("measuring")
        return _Made(source, compressed, self._error(source))

    def _check_raised(self, source: io.Source) -> None:
        """Raises ModelError where the float model computes something else at its new opset."""
        own, opset = default_opset(self.source.model), default_opset(source.model)
        if opset == own or isinstance(self.reference, str):
            return
        raised = f"raised from opset {own} to {opset}, the model"
        if opset not in self.changes:
            try:
                found = outputs_of(source, self.reference.feeds)
            except (ModelError, RunError) as error:
                if runs_opset(opset):
                    raise ModelError(f"{raised} cannot be run any more: {error}") from error
                self.changes[opset] = 0.0
            else:
                self.changes[opset] = self.reference.change(found)
        half = any(weight.tensor.data_type == TensorProto.FLOAT16 for weight in self.weights)
        if self.changes[opset] > LARGEST_CHANGE[half]:
            raise ModelError(
                f"{raised} computes something else: outputs are off by {self.changes[opset]:.1e}"
            )

    def _error(self, source: io.Source) -> OutputError | str:
        if isinstance(self.reference, str):
            return self.reference
        try:
            return self.reference.error(outputs_of(source, self.reference.feeds))
        except (ModelError, RunError) as error:
            return str(error)


def _options(weight: Weight, kernels: Mapping[int, Kernel]) -> list[Option]:
    """The ways to store a weight, by growing size; float is the last."""
    found = [
        Option(bits, Lowered(weight.name, kernel, set()).size(), kernel.weight)
        for bits, kernel in kernels.items()
    ]
    return [*sorted(found, key=lambda o: o.size), Option(None, payload_bytes(weight.tensor), None)]


def _compressed(weight: Weight, kernel: Kernel, source: io.Source) -> Compressed:
    """What the report says of a weight."""
    value = source.load(weight.tensor).astype(np.float64)
    rest = float(np.sum((value - kernel.weight().astype(np.float64)) ** 2))
    whole = float(np.sum(value**2))
    tensors = Lowered(weight.name, kernel, set()).tensors
    return Compressed(
        weight=weight.name,
        layer=weight.layer_name,
        shape=weight.shape,
        bits=kernel.bits,
        block=kernel.layout.size,
        scales=str(kernel.scales.dtype),
        snr=10 * math.log10(whole / rest) if whole and rest else math.inf,
        bytes_before=payload_bytes(weight.tensor),
        bytes_after=sum(map(payload_bytes, tensors)),
    )
