"""The report as tables in a terminal."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from onnxfuse.certify import Certificate
from onnxfuse.fold import Fold
from onnxfuse.report.markup import escape
from onnxfuse.report.report import Report, Tuned

if TYPE_CHECKING:
    from onnxfuse.benchmark.gate import Gate

MAX_FOLDS = 40
MAX_NAMES = 12
MAX_EXAMPLES = 3


def show(console: Console, report: Report, model: Path, output: Path | None) -> None:
    """Prints a report.

    Args:
        console: Where to.
        report: The report.
        model: The file that was read.
        output: The file that was written, or None.
    """
    if console.quiet:
        return
    console.print(_counts(report))
    if report.folds:
        console.print(_folds(report.folds))
    if report.refusals:
        console.print(_refusals(report))
    count = f"{len(report.folds)} fold{'s' * (len(report.folds) > 1)}"
    made = f"{count}, each certified in float64 (largest difference {report.worst.error:.1e})"
    console.print(made if report.folds else "nothing to fold")
    if report.denormals:
        console.print(f"{report.denormals:,} denormal numbers in weights set to zero")
    for tuned in report.tuned[:MAX_FOLDS]:
        console.print(_tuned(tuned), highlight=False, soft_wrap=True)
    if len(report.tuned) > MAX_FOLDS:
        console.print(f"and {len(report.tuned) - MAX_FOLDS} more that are faster in another way")
    if report.gate is not None:
        console.print(_gate(report.gate), highlight=False, soft_wrap=True)
    target = f"{escape(str(model))} -> {escape(str(output))}" if output else escape(str(model))
    console.print(target, soft_wrap=True)


def _tuned(tuned: Tuned) -> str:
    """A region that is made in another way, in a line."""
    first, *others = tuned.tensors
    named = f"{escape(first)} and {len(others)} more" if others else escape(first)
    return f"{named}: {tuned.way}, {tuned.ratio:.2f} times as fast there"


def _gate(gate: Gate | str) -> str:
    """How fast the model is here, in a sentence."""
    if isinstance(gate, str):
        return f"speed not measured: {escape(gate)}"
    sizes = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in gate.shapes.items())
    ratio = gate.ratio
    times = f"{ratio.value:.2f} times as fast (95%: {ratio.low:.2f} to {ratio.high:.2f})"
    line = f"{1e3 * gate.before:.3g} ms -> {1e3 * gate.after:.3g} ms, {times}"
    line = f"{line}, on {gate.provider} with {escape(sizes) or 'no inputs'}"
    if not gate.is_slower:
        return line
    advice = f"not without its {gate.blamed}: --skip {gate.blamed}" if gate.blamed else "as it is"
    return f"[bold]slower[/bold] here, {advice}: {line}"


def _counts(report: Report) -> Table:
    table = Table(title="Operators")
    for column in ("", "before", "after"):
        table.add_column(column, justify="left" if not column else "right")
    before, after = report.before, report.after
    for operator in sorted({*before.operators, *after.operators}):
        counts = (before.operators.get(operator, 0), after.operators.get(operator, 0))
        table.add_row(escape(operator), *map(str, counts))
    table.add_section()
    table.add_row("nodes", str(before.nodes), str(after.nodes))
    label = "multiply-adds"
    if report.assumed:
        sizes = ", ".join(f"{name}={size}" for name, size in report.assumed.items())
        label += f" ({escape(sizes)})"
    table.add_row(label, f"{before.macs:,}", f"{after.macs:,}")
    table.add_row("parameter bytes", f"{before.parameter_bytes:,}", f"{after.parameter_bytes:,}")
    return table


def _folds(folds: tuple[Fold, ...]) -> Table:
    table = Table(title="Folds", show_lines=True)
    table.add_column("made, and the nodes it replaces", overflow="fold")
    table.add_column("certificate", justify="right", overflow="fold")
    for fold in folds[:MAX_FOLDS]:
        made = " + ".join(fold.nodes) or "nothing"
        table.add_row(
            f"[bold]{escape(made)}[/bold]: {escape(fold.formula)}\n{escape(_names(fold))}",
            _certificate(fold.certificate),
        )
    if len(folds) > MAX_FOLDS:
        table.caption = f"and {len(folds) - MAX_FOLDS} more (--json lists all)"
    return table


def _certificate(certificate: Certificate) -> str:
    lines = [f"{certificate.error:.1e} at", _shapes(certificate.shapes)]
    if certificate.stretches:
        lines += ["movement proved at", _shapes(certificate.stretches)]
    if certificate.border:
        lines.append(f"border within {certificate.border:.1e}")
    return "\n".join(lines)


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes)


def _names(fold: Fold) -> str:
    """The replaced nodes, what their names share said once: a/b/{c, d}."""
    names = [name for name, _ in fold.replaced]
    low, high = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), 0)
    shared = low[: 1 + max(low.rfind(mark, 0, same) for mark in "/.")]
    rest = [name[len(shared) :] for name in names[:MAX_NAMES]]
    if len(names) > MAX_NAMES:
        rest.append(f"and {len(names) - MAX_NAMES} more")
    joined = ", ".join(rest)
    return f"{shared}{{{joined}}}" if shared else joined


def _refusals(report: Report) -> Table:
    by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
    for refused in report.refusals:
        gist = refused.reason.split(" (", 1)[0]
        by_reason[refused.operator, gist].append(refused.node)
    table = Table(title="Left as they are")
    for column in ("nodes", "operator", "reason"):
        table.add_column(column, overflow="fold")
    for (operator, reason), nodes in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        more = f" and {len(nodes) - MAX_EXAMPLES} more" if len(nodes) > MAX_EXAMPLES else ""
        examples = ", ".join(nodes[:MAX_EXAMPLES])
        table.add_row(escape(examples + more), escape(operator), escape(reason))
    return table
