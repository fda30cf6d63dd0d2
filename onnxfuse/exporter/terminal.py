"""What `onnxfuse export` prints."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from onnxfuse.exporter.backends import DESCRIPTIONS
from onnxfuse.exporter.export import ExportResult
from onnxfuse.report.markup import escape
from onnxfuse.report.terminal import show
from onnxfuse.shapes import default_opset


def show_export(console: Console, result: ExportResult, target: str, output: Path) -> None:
    """Prints the folds, if there was folding, then the check against PyTorch, then what is where.

    Args:
        console: Where to.
        result: The export.
        target: What was exported, as the user named it.
        output: The file that was written.
    """
    if console.quiet:
        return
    if result.report is not None:
        show(console, result.report, output, None)
    if result.parity:
        console.print(_parity(result))
    for note in result.notes:
        console.print(f"[bold]note:[/bold] {escape(note)}", soft_wrap=True)
    made = f"{DESCRIPTIONS[result.exporter]}, opset {default_opset(result.model)}"
    nodes = len(result.model.graph.node)
    line = f"{target} -> {output}: {made}, {nodes} node{'s' * (nodes != 1)}"
    console.print(escape(line), soft_wrap=True, highlight=False)


def _parity(result: ExportResult) -> Table:
    table = Table(title="ONNX Runtime against PyTorch")
    for column in ("inputs", "output"):
        table.add_column(column, overflow="fold")
    for column in ("relative L2", "largest", "rounding in PyTorch"):
        table.add_column(column, justify="right")
    for parity in result.parity:
        rounding = "not known" if parity.rounding is None else f"{parity.rounding:.1e}"
        errors = f"{parity.error:.1e}", f"{parity.largest:.1e}"
        table.add_row(escape(parity.inputs), escape(parity.output), *errors, rounding)
    return table
