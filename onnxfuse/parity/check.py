"""`check`: two models on the same inputs, against the first in float64."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.fold import Fold
from onnxfuse.parity.approximation import SATURATING, Approximation, is_quantized, required
from onnxfuse.parity.bisect import Bisection, Exposed, Runner
from onnxfuse.parity.cases import Case
from onnxfuse.parity.closeness import closeness
from onnxfuse.parity.counterparts import Counterparts
from onnxfuse.parity.evaluator import Evaluator, Unevaluated, Value, has_steps
from onnxfuse.parity.meaning import Compared
from onnxfuse.parity.pairing import pair
from onnxfuse.parity.result import CheckResult, Divergence, Meaning, OutputParity, type_name
from onnxfuse.parity.rounding import coarsest_type, roundoff
from onnxfuse.parity.runtime_noise import rounded_outputs
from onnxfuse.parity.setting import Progress, Setting
from onnxfuse.parity.truth import Leaf, expected, from_runtime, leaves, with_draws_of
from onnxfuse.parity.verdict import Verdict, judge
from onnxfuse.pipeline import OptimizeResult, optimize
from onnxfuse.runtime import RunError, load_model, open_session
from onnxfuse.runtime.providers import require_providers, short_name
from onnxfuse.runtime.session import Optimization


def check(
    first: Any,
    second: Any = None,
    *,
    providers: Sequence[str] = ("cpu",),
    sizes: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | None = None,
    seed: int = 0,
    optimization: Optimization = "all",
    threads: int | None = None,
    tf32: bool = False,
    bisect: bool = False,
    min_snr: float | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Compares two models on the same inputs, and tells rounding from errors.

    Both are held against the first one evaluated in float64. In float64 the second may differ by
    what roundings of stored constants explain, tensor by tensor; as ONNX Runtime computes it, it
    may be further from the truth than the first by what rounding in every operator explains.

    Models that are approximations, with weights in few bits or activations in eight, are not
    meant to be equal: with `min_snr` they agree where every floating output, on the inputs given or
    on noise, has at least that signal to noise ratio against the first model.

    Args:
        first: The model that is right: whatever `onnxfuse.optimize` takes.
        second: The model in question, or what `optimize` gave; None for the first one, optimized.
        providers: Execution providers, as "cpu" or "CUDAExecutionProvider".
        sizes: Extents of symbolic dimensions, by name; others are chosen.
        inputs: An .npz or a folder of ONNX test data; default: noise, and special values.
        seed: Of the noise.
        optimization: How far the runtime's own optimizer goes.
        threads: Threads within an operator; None for the runtime's choice.
        tf32: On CUDA, whether products in float32 may be computed in TF32.
        bisect: Whether to look for the first tensor where the two part.
        min_snr: Decibels that each floating output needs, 20 log10(|first| / |second - first|) over
            all its elements; None where models have to be equal but for rounding. Zeros, a
            constant, large and tiny numbers are shown and not judged.
        progress: Called with a word on each step as it begins.

    Raises:
        ModelError: A model, a provider, the inputs or `min_snr` cannot be used, or the models have
            other inputs or outputs.
        CertificateError: The first model was to be optimized, and a fold went wrong.
    """
    tell = progress or (lambda step: None)
    if min_snr is not None:
        min_snr = required(min_snr)
        if bisect:
            raise ModelError(
                "bisect looks for errors, and with min_snr models may differ: leave one of them out"
            )
    chosen = require_providers(providers)
    tell("reading")
    source = io.read(first)
    folds: tuple[Fold, ...] = ()
    name = None
    if second is None:
        second = optimize(first, progress=tell)
    if isinstance(second, OptimizeResult):
        folds, name = second.report.folds, f"{source.name}, optimized"
        second = second.model
    opened = partial(open_session, optimization=optimization, threads=threads, tf32=tf32)
    with ExitStack() as stack:
        given = first if source.path is not None else source
        ours = stack.enter_context(load_model(given))
        theirs = stack.enter_context(load_model(second, name))
        setting = Setting.of(ours, theirs, opened, chosen, tell)
        recorded = None if inputs is None else Path(inputs)
        if min_snr is not None:
            return Approximation(setting, min_snr).result(dict(sizes or {}), recorded, seed)
        return _Check(setting, folds, bisect).result(dict(sizes or {}), recorded, seed)


@dataclass
class _Check:
    """One comparison."""

    setting: Setting
    folds: tuple[Fold, ...]
    bisect: bool
    outputs: list[OutputParity] = field(default_factory=list)
    meanings: list[Meaning] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    divergence: Divergence | None = None
    bisection: Bisection | None = None
    disbelieved: set[str] = field(default_factory=set)
    kernels: set[str] = field(default_factory=set)
    _plain: tuple[Case, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.first, self.second = self.setting.first, self.setting.second
        self.interface, self.tell = self.setting.interface, self.setting.tell
        self.steps = has_steps(self.first.source.model)
        self.unit = max(roundoff(coarsest_type(m.source.model)) for m in (self.first, self.second))

    def result(self, sizes: Mapping[str, int], recorded: Path | None, seed: int) -> CheckResult:
        cases = self.setting.cases(sizes, recorded, seed)
        truth = "float64"
        try:
            cases, truths = self._in_float64(cases)
        except Unevaluated as reason:
            truth = f"the first model as ONNX Runtime computes it, since {reason}"
            self.tell("the first model with other roundings")
            truths = from_runtime(self.first, [case.feeds for case in cases])
        for provider in self.setting.providers:
            self._on_provider(provider, cases, truths, truth == "float64")
        if self.kernels:
            self._note_kernels()
        if self.disbelieved:
            self._drop_meanings()
        return CheckResult(
            self.first.name,
            self.second.name,
            truth,
            tuple(self.outputs),
            tuple(self.meanings),
            self.divergence,
            tuple(dict.fromkeys(self.notes)),
        )

    def _in_float64(self, cases: Sequence[Case]) -> tuple[list[Case], list[list[Value]]]:
        """The cases that have an evaluation, and the first model's outputs for each.

        Compares what the models mean besides.

        Raises:
            Unevaluated: No case has one.
        """
        first = Evaluator(self.first.source)
        evaluated: list[Case] = []
        truths: list[list[Value]] = []
        missing: list[tuple[Case, Unevaluated]] = []
        for case in cases:
            self.tell(f"float64, {case.label}")
            try:
                truths.append(rounded_outputs(first, case.feeds, self.unit))
                evaluated.append(case)
            except Unevaluated as error:
                missing.append((case, error))
        for case, why in missing:
            if not evaluated:
                raise why
            self.notes.append(f"left out, {case.label}: no float64 evaluation: {why}")
        try:
            second = Evaluator(self.second.source)
            self._compare_meanings(first, second, [case for case in evaluated if case.generic])
        except Unevaluated as reason:
            self.meanings.clear()
            self.notes.append(
                f"{self.second.name} cannot be evaluated in float64, and is judged as it runs, "
                f"which tells only larger errors from rounding: {reason}"
            )
            return evaluated, truths
        both = zip(evaluated, truths, strict=True)
        return evaluated, [self._with_roundings_of(second, case, truth) for case, truth in both]

    def _with_roundings_of(self, second: Evaluator, case: Case, truth: list[Value]) -> list[Value]:
        """The truth, with what the second model's operators round too, where that is known."""
        self.tell(f"roundings, {case.label}")
        try:
            made = rounded_outputs(second, self.interface.renamed(case.feeds), self.unit)
        except Unevaluated:  # a shape that it cannot take: the runs will say so
            return truth
        by_name = dict(zip(second.outputs, made, strict=True))
        return with_draws_of(truth, [by_name[theirs] for _, theirs in self.interface.outputs])

    def _compare_meanings(self, first: Evaluator, second: Evaluator, cases: Sequence[Case]) -> None:
        double = coarsest_type(self.first.source.model) == "float64"
        if not cases:
            return
        feeds = cases[0].feeds
        pairs = pair(first, second, feeds, self.interface.renamed(feeds))
        both = Counterparts(first, second, self.interface, pairs, double)
        for case in cases:
            self.tell(f"both in float64, {case.label}")
            both, compared = both.settled(both.compared(case.feeds), case.feeds)
            self.bisection = Bisection(both, self.folds)
            self._note(compared, case)
            if self.bisect and self.divergence is None and not compared.agrees:
                self.divergence = self.bisection.in_float64(compared, case.feeds, case.label)

    def _note(self, compared: Compared, case: Case) -> None:
        """Keeps what a comparison in float64 found."""
        theirs = [name for _, name in self.interface.outputs]
        found = list(zip(theirs, compared.outputs, strict=True))
        inner = compared.apart or {n: o for n, o in compared.agreeing.items() if n not in theirs}
        if inner:
            found.append(max(inner.items(), key=lambda item: item[1].ratio))
        self.meanings += [
            Meaning(case.label, name, off.ratio, off.channel, agrees=off.ratio <= 1)
            for name, off in found
        ]

    def _on_provider(
        self,
        provider: str,
        cases: Sequence[Case],
        truths: Sequence[Sequence[Value]],
        in_float64: bool,
    ) -> None:
        names = [name for name, _ in self.interface.outputs]
        for number, left, right in self.setting.runs(provider, cases, self.notes):
            case = cases[number]
            if isinstance(right, RunError):
                self.outputs += [_missing(provider, case, name, str(right)) for name in names]
                continue
            found = self._parities(provider, case, left, right, truths[number])
            self.outputs += found
            if not all(parity.agrees for parity in found) and in_float64:
                self._bisect_on(provider, case)

    def _parities(
        self,
        provider: str,
        case: Case,
        left: Sequence[Any],
        right: Sequence[Any],
        truth: Sequence[Value],
    ) -> list[OutputParity]:
        """Every array of every output."""
        found: list[OutputParity] = []
        names = [name for name, _ in self.interface.outputs]
        targets = expected(names, truth)
        for name, a, b in zip(names, left, right, strict=True):
            ours, theirs = leaves(name, a), leaves(name, b)
            if ours.keys() != theirs.keys():
                found.append(_missing(provider, case, name, "it is a sequence of another length"))
                continue
            for label, array in ours.items():
                target = targets.get(label) or expected([label], [(array,)])[label]
                verdict = judge(array, theirs[label], target, steps=self.steps)
                if not verdict.believed:
                    said = (
                        self.kernels if self._is_kernel(case, label, target) else self.disbelieved
                    )
                    said.add(label)
                found.append(_parity(provider, case, label, array, theirs[label], verdict))
        return found

    def _is_kernel(self, case: Case, label: str, target: Leaf) -> bool:
        """True where the runtime computes what ONNX defines once its optimizer is off."""
        if self._plain is None or self._plain[0] is not case:
            session = self.setting.opened(self.first, "CPUExecutionProvider", optimization="off")
            names = [name for name, _ in self.interface.outputs]
            made = zip(names, session.run(case.feeds, names), strict=True)
            self._plain = (
                case,
                {k: v for name, value in made for k, v in leaves(name, value).items()},
            )
        array = self._plain[1].get(label)
        return array is not None and judge(array, array, target, steps=self.steps).believed

    def _note_kernels(self) -> None:
        names = ", ".join(map(repr, sorted(self.kernels)))
        hint = f"; {SATURATING}" if is_quantized(self.first) else ""
        self.notes.append(
            f"ONNX Runtime, optimizing, computes {names} of the first model otherwise than it is "
            f"defined: there the second is compared with that run{hint}"
        )

    def _drop_meanings(self) -> None:
        """The evaluation is not what the runtime computes: what it says of the second is void."""
        names = ", ".join(map(repr, sorted(self.disbelieved)))
        self.notes.append(
            f"ONNX Runtime computes {names} of the first model otherwise than its definition in "
            "float64: the second is compared with that run"
        )
        self.meanings.clear()
        self.divergence = None

    def _bisect_on(self, provider: str, case: Case) -> None:
        """Looks for where the two part on a provider, if that is not known yet."""
        if not self.bisect or self.divergence is not None or self.bisection is None:
            return
        opened = partial(self.setting.opened, provider=provider)
        runner = Runner(Exposed(self.first, opened), Exposed(self.second, opened))
        self.tell("looking for where they part")
        name = short_name(provider)
        self.divergence = self.bisection.on_provider(
            runner, case.feeds, self.unit, case.label, name
        )
        if self.divergence is None:
            self.notes.append(
                f"on {name} the models part only in a run as a whole: with inner tensors as "
                "outputs the runtime fuses other nodes"
            )


def _parity(
    provider: str, case: Case, label: str, ours: Any, theirs: Any, verdict: Verdict
) -> OutputParity:
    alike = (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return OutputParity(
        provider=short_name(provider),
        inputs=case.label,
        output=label,
        dtype=type_name(ours),
        shape=ours.shape,
        closeness=closeness(ours, theirs) if alike else None,
        first_error=verdict.first,
        second_error=verdict.second,
        bound=verdict.bound,
        reason=verdict.reason,
    )


def _missing(provider: str, case: Case, name: str, reason: str) -> OutputParity:
    return OutputParity.missing(short_name(provider), case.label, name, reason)
