"""Models that are not meant to be equal: how near the second comes, as a signal to noise ratio.

Weights in few bits and activations in eight are approximations, and no rounding explains how far
they are off. SNR = 20 log10(|first| / |second - first|), over all elements of an output. It is
taken as ONNX Runtime computes both models, and besides as ONNX defines them, in float64: what lies
between the two is lost in the runtime's kernels, and not in the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxfuse.errors import ModelError
from onnxfuse.parity.cases import Case
from onnxfuse.parity.closeness import closeness
from onnxfuse.parity.evaluator import Evaluator, Unevaluated, uses
from onnxfuse.parity.result import CheckResult, OutputParity, type_name
from onnxfuse.parity.setting import Setting
from onnxfuse.parity.spread import gap, unequal
from onnxfuse.parity.truth import leaves
from onnxfuse.parity.verdict import unlike
from onnxfuse.quantized import QUANTIZING
from onnxfuse.runtime import Loaded, RunError
from onnxfuse.runtime.providers import short_name

SATURATING = (
    "on x86 processors without VNNI, its products of uint8 and int8 saturate at 16 bits, which "
    "uint8 weights, or int8 ones of 7 bits (reduce_range), avoid"
)
"""What is known of kernels that compute integers otherwise than ONNX defines them."""

_LOST = 3.0
"""Decibels by which a run is worse than the definition, from which on it is said: half the noise
comes from the runtime's kernels."""

_ROUNDED = 80.0
"""Decibels from which on roundings of float32 may be all the noise."""


def is_quantized(loaded: Loaded) -> bool:
    """True for a model that computes with codes for numbers, by ONNX's operators."""
    return uses(loaded.source.model, QUANTIZING)


def required(min_snr: float) -> float:
    """A ratio that can be asked for, in decibels.

    Raises:
        ModelError: It is no finite number.
    """
    if isinstance(min_snr, bool) or not isinstance(min_snr, (int, float)):
        raise ModelError(f"min_snr takes a number of decibels, not {min_snr!r}")
    if not math.isfinite(min_snr):
        raise ModelError(f"min_snr takes a finite number of decibels, not {min_snr}")
    return float(min_snr)


def decibels(error: float) -> float:
    """The signal to noise ratio that a relative error is; infinite where there is none."""
    return (
        -20 * math.log10(error) if 0 < error < math.inf else math.inf if error == 0 else -math.inf
    )


def decibels_in_words(error: float) -> str:
    """A relative error as decibels, to be printed; "equal" where there is none."""
    return "equal" if error == 0 else f"{decibels(error):.1f}"


def relative_error(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Norm of the difference over the norm of the first array, both of one shape and floating.

    Infinite where the first is zero, and where one of the two alone is not finite.
    """
    difference = np.abs(gap(second, first))
    finite = np.where(np.isfinite(first), first, 0.0).astype(np.float64)
    largest = float(difference.max(initial=0.0))
    if not 0 < largest < math.inf:
        return largest
    scale = float(np.abs(finite).max(initial=0.0))
    if not scale:
        return math.inf
    error, size = np.linalg.norm(difference / largest), np.linalg.norm(finite / scale)
    return float(error / size * (largest / scale))


@dataclass
class Approximation:
    """One comparison.

    Attributes:
        setting: The two models.
        min_snr: Decibels that every floating output needs.
    """

    setting: Setting
    min_snr: float
    notes: list[str] = field(default_factory=list)

    def result(self, sizes: Mapping[str, int], recorded: Path | None, seed: int) -> CheckResult:
        """What `check` returns.

        Noise, and what a user gives, is judged; zeros, a constant, large and tiny numbers are
        shown, since a model that was calibrated has no codes for them.

        Raises:
            ModelError: The models cannot be compared, or have no floating output to judge.
        """
        setting = self.setting
        cases = setting.cases(sizes, recorded, seed)
        if recorded is None and uses(setting.second.source.model, {"QuantizeLinear"}):
            self.notes.append(
                f"{setting.second.name} has scales for the inputs that it was calibrated on, and "
                "is judged on noise: --inputs gives it others"
            )
        defined = self._in_float64(cases)
        outputs: list[OutputParity] = []
        for provider in setting.providers:
            found = self._on_provider(provider, cases, defined)
            if not any(output.judged for output in found):
                raise ModelError(
                    f"nothing to judge by its SNR on {short_name(provider)}: no floating output "
                    "was computed"
                )
            self._note_kernels(found)
            outputs += found
        return CheckResult(
            setting.first.name,
            setting.second.name,
            "the first model as ONNX Runtime computes it",
            tuple(outputs),
            (),
            notes=tuple(dict.fromkeys(self.notes)),
            min_snr=self.min_snr,
        )

    def _in_float64(self, cases: Sequence[Case]) -> list[dict[str, float]]:
        """The relative error by label of a floating output, as ONNX defines both models."""
        setting, found = self.setting, []
        try:
            first, second = Evaluator(setting.first.source), Evaluator(setting.second.source)
            for case in cases:
                setting.tell(f"float64, {case.label}")
                ours = first.run(case.feeds) if case.generic else []
                theirs = second.run(setting.interface.renamed(case.feeds)) if case.generic else []
                found.append(self._errors(first, second, ours, theirs))
        except Unevaluated as reason:
            self.notes.append(f"no float64 evaluation: {reason}")
            return [{} for _ in cases]
        return found

    def _errors(
        self, first: Evaluator, second: Evaluator, ours: Sequence[Any], theirs: Sequence[Any]
    ) -> dict[str, float]:
        left = dict(zip(first.outputs, ours, strict=False))
        right = dict(zip(second.outputs, theirs, strict=False))
        found: dict[str, float] = {}
        for name, other in self.setting.interface.outputs:
            if name in left:
                arrays = leaves(name, right[other][0])
                for label, array in leaves(name, left[name][0]).items():
                    made = arrays.get(label)
                    if made is not None and array.dtype.kind == made.dtype.kind == "f":
                        alike = array.shape == made.shape
                        found[label] = relative_error(array, made) if alike else math.inf
        return found

    def _on_provider(
        self, provider: str, cases: Sequence[Case], defined: Sequence[Mapping[str, float]]
    ) -> list[OutputParity]:
        names = [name for name, _ in self.setting.interface.outputs]
        found: list[OutputParity] = []
        shown = short_name(provider)
        for number, left, right in self.setting.runs(provider, cases, self.notes):
            case = cases[number]
            if isinstance(right, RunError):
                found += [
                    OutputParity.missing(shown, case.label, name, str(right)) for name in names
                ]
                continue
            for name, a, b in zip(names, left, right, strict=True):
                ours, theirs = leaves(name, a), leaves(name, b)
                if ours.keys() != theirs.keys():
                    reason = "it is a sequence of another length"
                    found.append(OutputParity.missing(shown, case.label, name, reason))
                    continue
                found += [
                    self._parity(shown, case, label, array, theirs[label], defined[number])
                    for label, array in ours.items()
                ]
        return found

    def _parity(
        self,
        provider: str,
        case: Case,
        label: str,
        ours: NDArray[Any],
        theirs: NDArray[Any],
        defined: Mapping[str, float],
    ) -> OutputParity:
        reason, floating = unlike(ours, theirs), ours.dtype.kind == "f"
        error = math.nan
        if not reason:
            error = (
                relative_error(ours, theirs) if floating else float(np.mean(unequal(ours, theirs)))
            )
        judged = case.generic and floating
        if judged and not reason and decibels(error) < self.min_snr:
            reason = f"its SNR is {decibels(error):.1f} dB, less than {self.min_snr:g} dB"
            if error == math.inf:
                reason = "it has NaN or infinity where it should not"
                if np.isfinite(theirs).all() and not ours.any():
                    reason = "the first model gives zeros there, and it does not"
        return OutputParity(
            provider=provider,
            inputs=case.label,
            output=label,
            dtype=type_name(ours),
            shape=ours.shape,
            closeness=None if unlike(ours, theirs) else closeness(ours, theirs),
            first_error=0.0,
            second_error=error,
            bound=10 ** (-self.min_snr / 20),
            reason=reason,
            judged=judged or bool(reason),
            float64_error=defined.get(label),
        )

    def _note_kernels(self, outputs: Sequence[OutputParity]) -> None:
        """Says where a run is much worse than what the model is defined to be."""
        for output in outputs:
            known = output.float64_error
            if not output.judged or known is None:
                continue
            here, there = decibels(output.second_error), decibels(known)
            if here < min(there - _LOST, _ROUNDED) and is_quantized(self.setting.second):
                self.notes.append(
                    f"on {output.provider} {output.output!r} has an SNR of {here:.1f} dB as ONNX "
                    f"Runtime computes it, and of {there:.1f} dB as ONNX defines it "
                    f"({output.inputs}): the rest is lost in kernels; {SATURATING}"
                )
                return
