"""PyTorch to ONNX: trace, check against PyTorch, fold if asked to, write."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from onnxfuse import io
from onnxfuse.errors import ExportWarning, ModelError, ParityError
from onnxfuse.exporter import parity, sizes
from onnxfuse.exporter.backends import DESCRIPTIONS, Exporter, Request, run_exporter
from onnxfuse.exporter.expected import Expectations, Expected, expectations
from onnxfuse.exporter.inputs import Axes, dynamic_axes
from onnxfuse.exporter.pytorch import ExportError, require
from onnxfuse.exporter.subject import Subject, evaluating, of_module, of_program
from onnxfuse.pipeline import optimize as fold
from onnxfuse.report import Report

if TYPE_CHECKING:
    from torch import Tensor

_ONE_AT_A_TIME = threading.RLock()  # torch's exporters, and what silences them, are global

Dynamic = Sequence[str] | Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class ExportResult:
    """An exported model, and how it was checked.

    Attributes:
        model: The model.
        exporter: "dynamo", torch's default exporter, or "script", the tracing one.
        parity: Each output at each size that was run, ONNX Runtime against PyTorch; empty where the
            check was left out.
        notes: What the user should know, a line each: that an exporter failed and the other was
            taken, sizes that could not be checked.
        report: What was folded; None where the model was not to be optimized.
    """

    model: onnx.ModelProto
    exporter: Exporter
    parity: tuple[parity.Parity, ...]
    notes: tuple[str, ...]
    report: Report | None
    _source: io.Source = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model; the file appears whole or not at all.

        Raises:
            ModelError: If it cannot be written there.
        """
        io.write(self._source, path)

    def to_json(self) -> str:
        """Everything but the model as JSON, keys as the attributes are named."""
        report = None if self.report is None else json.loads(self.report.to_json())
        found = [asdict(parity) for parity in self.parity]
        content = {"exporter": self.exporter, "parity": found, "notes": self.notes}
        return json.dumps({**content, "report": report}, indent=2)


def export(
    module: Any,
    args: Any = (),
    path: str | os.PathLike[str] | None = None,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic: Dynamic = (),
    opset: int | None = None,
    exporter: Exporter | None = None,
    optimize: bool = False,
    check: bool = True,
    progress: Callable[[str], None] | None = None,
) -> ExportResult:
    """Exports a PyTorch module as an ONNX model that computes what it computes in eval mode.

    The training form is kept: branches stay branches unless `optimize` is given. (torch's default
    exporter folds a BatchNorm into the convolution before it; the script exporter is told to fold
    nothing.) Afterwards ONNX Runtime runs the model, its own optimizations off, on the same inputs
    as PyTorch, and with each dynamic axis at another extent as well.

    Args:
        module: A torch.nn.Module, exported in eval mode and left in the mode it is in; or a
            torch.export.ExportedProgram.
        args: Example inputs: a tensor or several; for a program the ones it holds are taken.
        path: Where to write; None to write nothing. Nothing is written when anything fails.
        input_names: Names of the inputs; default: of the parameters of forward().
        output_names: Names of the outputs; default: "output", "output_0" and so on, or the keys.
        dynamic: Dynamic axes: names out of "batch", "length", "depth", "height" and "width", which
            stand for the usual axes of every input; or {input: {axis: name}}. Extents of 0 and 1 in
            the examples are traced as 2, since the exporters take them for constants.
        opset: Opset of the model; default: the exporter's.
        exporter: "dynamo" or "script"; default: torch's default exporter (dynamo), and the other
            one where that fails.
        optimize: Whether to fold the model, as `onnxfuse.optimize` does.
        check: Whether to run the model against PyTorch.
        progress: Called with a word on each step as it begins.

    Returns:
        The model, and how far it is from PyTorch. Each of its notes is an ExportWarning too.

    Raises:
        ModelError: The module, an option or the path cannot be used, or no exporter can express the
            module.
        ParityError: The model does not compute what PyTorch does.
        CertificateError: With `optimize`, if a fold does not agree with what it replaces.
    """
    if path is not None:
        io.check_target(path)
    if exporter not in (None, *DESCRIPTIONS):
        raise ModelError(f"no exporter is called {exporter!r}: choose dynamo or script")
    names = (input_names, output_names)
    settings = _Settings(*names, dynamic, opset, exporter, optimize, check)
    with _ONE_AT_A_TIME:
        result = _exported(module, args, settings, progress or (lambda step: None))
    for note in result.notes:
        warnings.warn(note, ExportWarning, stacklevel=2)
    if path is not None:
        result.save(path)
    return result


@dataclass(frozen=True)
class _Settings:
    """The arguments of `export` that say how."""

    input_names: Sequence[str] | None
    output_names: Sequence[str] | None
    dynamic: Dynamic
    opset: int | None
    exporter: Exporter | None
    optimize: bool
    check: bool


def _exported(
    module: Any, args: Any, settings: _Settings, tell: Callable[[str], None]
) -> ExportResult:
    torch = require()
    tensors = _tensors(args)
    if isinstance(module, torch.export.ExportedProgram):
        if settings.dynamic:
            raise ModelError("the dynamic axes of an exported program are settled already")
        if settings.exporter == "script":
            raise ModelError("the script exporter takes modules, not exported programs")
        if tensors:
            raise ModelError("an exported program brings its own example inputs")
        subject, tensors, axes = of_program(module, settings.input_names)
        return _Run(subject, tensors, axes, settings, ("dynamo",), tell).result()
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"export takes a torch.nn.Module or an ExportedProgram, not {type(module).__name__}"
        )
    exporters: tuple[Exporter, ...] = ("dynamo", "script")
    if settings.exporter is not None:
        exporters = (settings.exporter,)
    with evaluating(module):
        subject = of_module(module, tensors, settings.input_names)
        axes = dynamic_axes(settings.dynamic, subject.names, tensors)
        return _Run(subject, tensors, axes, settings, exporters, tell).result()


def _tensors(args: Any) -> tuple[Tensor, ...]:
    torch = require()
    if not isinstance(args, (torch.Tensor, list, tuple)):
        raise ModelError(f"args are a tensor or several, not a {type(args).__name__}")
    given = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    for index, value in enumerate(given):
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"input {index} is a {type(value).__name__}, not a tensor")
    return given


class _Run:
    """One export of one module."""

    def __init__(
        self,
        subject: Subject,
        tensors: tuple[Tensor, ...],
        axes: Axes,
        settings: _Settings,
        exporters: tuple[Exporter, ...],
        tell: Callable[[str], None],
    ) -> None:
        self.subject, self.tensors, self.axes, self.settings = subject, tensors, axes, settings
        self.exporters, self.tell = exporters, tell
        self.notes: list[str] = []
        tell("running PyTorch")
        found = tuple(subject.checked_run(tensors))
        names = found if settings.output_names is None else tuple(settings.output_names)
        if len(names) != len(found) or len({*names, *subject.names}) < len(names) + len(tensors):
            raise ModelError(
                f"{len(found)} outputs, but names for {len(names)}, or one that an input has: "
                f"{', '.join(names)}"
            )
        traced = sizes.for_tracing(axes, tensors)
        self.request = Request(subject, traced, axes, names, settings.opset)

    def result(self) -> ExportResult:
        self.known = Expectations()
        if self.settings.check:
            self.known = expectations(self.subject, self.axes, self.tensors)
        cases = first = self.known.cases
        if self.settings.optimize and self.settings.check:
            # what an exporter has frozen at the sizes it saw, folding may free
            first = expectations(
                self.subject, ({},) * len(self.tensors), self.request.tensors
            ).cases
        exporter, source, found = self._exported(first)
        report: Report | None = None
        if self.settings.optimize:
            folded = fold(source.model, progress=self.tell)
            report, source = folded.report, io.Source(folded.model)
            try:
                found = self._compared(source, cases)
            except ExportError as error:
                raise ModelError(f"{DESCRIPTIONS[exporter]} failed: {error}") from error
        notes = (*self.notes, *self.known.unchecked)
        return ExportResult(source.model, exporter, tuple(found), notes, report, source)

    def _exported(
        self, cases: Sequence[Expected]
    ) -> tuple[Exporter, io.Source, list[parity.Parity]]:
        """The model of the first exporter that gives one.

        Where PyTorch itself does not run at other sizes, a second exporter that promises them is
        not believed.
        """
        failures: list[str] = []
        for exporter in self.exporters:
            self.tell(f"exporting with {DESCRIPTIONS[exporter]}")
            try:
                source = run_exporter(exporter, self.request)
                found = self._compared(source, cases)
            except (ExportError, ParityError) as error:
                failures.append(f"{DESCRIPTIONS[exporter]} failed: {error}")
                if exporter == self.exporters[-1] or not self.known.all_sizes:
                    kind = ParityError if isinstance(error, ParityError) else ModelError
                    raise kind("; ".join((*failures, *self.known.unchecked))) from error
            else:
                self.notes += [f"{failed}; took the other one" for failed in failures]
                return exporter, source, found
        raise AssertionError("there is always an exporter to try")

    def _compared(self, source: io.Source, cases: Sequence[Expected]) -> list[parity.Parity]:
        if not cases:
            return []
        self.tell("running ONNX Runtime")
        return parity.compare(source, self.subject.names, cases)
