"""What `onnxfuse quantize` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onnxfuse.benchmark.terminal import number, speedup
from onnxfuse.equalization import SCALED, SHIFTED, SPLIT, Equalized
from onnxfuse.quantization.report import Form, QuantizeReport
from onnxfuse.report.markup import escape

MOST_LEFT = 10


def show_quantize(console: Console, report: QuantizeReport, model: Path, output: Path) -> None:
    """Prints the forms of a model in a table, then what they are made of.

    Args:
        console: Where to.
        report: The report.
        model: The file that was read.
        output: The file that was written.
    """
    if console.quiet:
        return
    if report.forms:
        console.print(_forms(report))
    lines = [*(_compared(report) if report.forms else ()), *_made(report), *report.notes]
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)
    console.print(f"{escape(str(model))} -> {escape(str(output))}", soft_wrap=True)


def _forms(report: QuantizeReport) -> Table:
    table = Table(title="Forms of the model")
    table.add_column("", overflow="fold")
    has_accuracy = any(
        f.quality is not None and f.quality.accuracy is not None for f in report.forms
    )
    columns = ["SNR, dB", "rel. L2", "MB", "ms", "speedup"]
    for column in (["top-1"] if has_accuracy else []) + columns:
        table.add_column(column, justify="right", no_wrap=True)
    for form in report.forms:
        cells = _cells(form)
        table.add_row(escape(form.name), *(cells if has_accuracy else cells[1:]))
    return table


def _cells(form: Form) -> list[str]:
    quality = form.quality
    if quality is None or form.latency is None or form.ratio is None or form.file_bytes is None:
        return ["-"] * 6
    return [
        "-" if quality.accuracy is None else f"{quality.accuracy:.2%}",
        "-" if quality.snr is None else f"{quality.snr:.1f}",
        "-" if quality.error is None else f"{quality.error:.1e}",
        number(form.file_bytes / 1e6),
        number(1000 * form.latency.value),
        "1" if form.ratio.low == form.ratio.high == 1 else speedup(form.ratio),
    ]


def _compared(report: QuantizeReport) -> list[str]:
    machine = report.machine
    threads = "the runtime's choice of threads"
    if report.threads is not None:
        threads = f"{report.threads} thread{'s' * (report.threads != 1)}"
    runs = f"{report.evaluated} run{'s' * (report.evaluated != 1)}"
    own = " (which it was calibrated with)" * (report.evaluation == report.calibration)
    return [
        *(f"{form.name}: {form.failure}" for form in report.forms if form.failure),
        f"compared over {runs} of {report.evaluation}{own}; SNR: the float model's outputs over "
        "the difference from them; speedup: against float, folded, round by round",
        f"{machine['processor']} ({machine['instructions']}), {threads}; ONNX Runtime "
        f"{machine['onnxruntime']}",
    ]


def _made(report: QuantizeReport) -> list[str]:
    counts = ", ".join(f"{q.count} of {q.total} {q.operator}" for q in report.operators)
    runs = f"{report.calibrated} run{'s' * (report.calibrated != 1)}"
    lines = [
        f"in int8: {counts or 'no layer with a weight'}; calibrated with {runs} of "
        f"{report.calibration} ({report.method})",
        *_equalized(report.equalized),
        f"weights of {report.weight_bits} bits: {report.weight_bits_reason}",
    ]
    lines += [f"{r.operator} {r.node} stays float: {r.reason}" for r in report.left[:MOST_LEFT]]
    if len(report.left) > MOST_LEFT:
        lines.append(f"and {len(report.left) - MOST_LEFT} more (--json lists all)")
    return lines


def _equalized(nodes: Sequence[Equalized]) -> list[str]:
    """What was changed in front of the quantizer, if anything was."""
    if not nodes:
        return []
    count = Counter(node.change for node in nodes)
    words = (
        (SPLIT, "layers in two parts"),
        (SCALED, "nodes with other scales of channels"),
        (SHIFTED, "nodes with other biases"),
    )
    parts = ", ".join(f"{count[change]} {what}" for change, what in words if count[change])
    worst = max(node.certificate.error for node in nodes)
    return [f"equalized: {parts}; each proved in float64 (largest difference {worst:.1e})"]
