"""What `onnxfuse compress` prints."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onnxfuse.compression.result import Compressed, CompressReport, LeftAlone, OutputError
from onnxfuse.report.markup import escape

MOST_WEIGHTS = 8
MOST_EXAMPLES = 3
ONCE = "session.disable_quant_qdq=1"
"""The session option with which ONNX Runtime computes the weights once."""


def show_compress(console: Console, report: CompressReport, model: Path, output: Path) -> None:
    """Prints a report: weights by bits, those that lost most, those left alone, sizes and error.

    Args:
        console: Where to.
        report: The report.
        model: The file that was read.
        output: The file that was written.
    """
    if console.quiet:
        return
    if report.compressed:
        console.print(_by_bits(report.compressed))
        console.print(_least(report.compressed))
    if report.left:
        console.print(_left(report.left))
    if report.folded is not None:
        console.print(f"{report.folded} fold{'s' * (report.folded != 1)} made first")
    before, after = report.opset
    if before != after:
        console.print(f"opset {before} -> {after}")
    sizes = f"{report.bytes_before:,} bytes -> {report.bytes_after:,}"
    console.print(f"{sizes}, {report.ratio:.2f} times smaller", highlight=False)
    console.print(escape(_error(report.error)), highlight=False, soft_wrap=True)
    if report.compressed:
        console.print(
            "ONNX Runtime computes these weights in each run; with the session option "
            f"{ONCE} once, when it loads the model, and then runs as fast as in float",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"{escape(str(model))} -> {escape(str(output))}", soft_wrap=True)


def _error(error: OutputError | str) -> str:
    """How far outputs are off, in a sentence."""
    if isinstance(error, str):
        return f"output error not measured: {error}"
    sets = f"{error.samples} set{'s' * (error.samples != 1)} of inputs, {error.inputs}"
    return f"outputs off by {error.relative_l2:.2e} (relative L2; {error.snr:.1f} dB), on {sets}"


def _by_bits(compressed: Sequence[Compressed]) -> Table:
    table = Table(title="Weights in integers")
    for column in ("bits", "weights", "bytes before", "after", "SNR, dB: least", "median"):
        table.add_column(column, justify="right")
    for bits in sorted({weight.bits for weight in compressed}):
        some = [weight for weight in compressed if weight.bits == bits]
        ratios = [weight.snr for weight in some]
        table.add_row(
            str(bits),
            str(len(some)),
            f"{sum(weight.bytes_before for weight in some):,}",
            f"{sum(weight.bytes_after for weight in some):,}",
            f"{min(ratios):.1f}",
            f"{statistics.median(ratios):.1f}",
        )
    return table


def _least(compressed: Sequence[Compressed]) -> Table:
    table = Table(title="Weights that lost most")
    for column in ("layer", "shape", "bits", "block", "SNR, dB"):
        table.add_column(column, justify="right" if column != "layer" else "left", overflow="fold")
    for weight in sorted(compressed, key=lambda weight: weight.snr)[:MOST_WEIGHTS]:
        shape = "x".join(map(str, weight.shape))
        numbers = (str(weight.bits), str(weight.block), f"{weight.snr:.1f}")
        table.add_row(escape(weight.layer), shape, *numbers)
    if len(compressed) > MOST_WEIGHTS:
        table.caption = f"and {len(compressed) - MOST_WEIGHTS} more (--json lists all)"
    return table


def _left(left: Sequence[LeftAlone]) -> Table:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for weight in left:
        by_reason[weight.reason].append(weight.layer)
    table = Table(title="Left in float")
    for column in ("layers", "reason"):
        table.add_column(column, overflow="fold")
    for reason, layers in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        more = f" and {len(layers) - MOST_EXAMPLES} more" if len(layers) > MOST_EXAMPLES else ""
        table.add_row(escape(", ".join(layers[:MOST_EXAMPLES]) + more), escape(reason))
    return table
