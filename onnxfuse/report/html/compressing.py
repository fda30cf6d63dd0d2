"""The page of `compress`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxfuse.report.html.chart import Dot, Row, bar, dots
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.numbers import exact, plural, shape, size, small, value
from onnxfuse.report.html.page import Figure, Section, facts, page, table
from onnxfuse.report.html.refusals import grouped
from onnxfuse.report.report import Refused

if TYPE_CHECKING:
    from onnxfuse.compression.result import Compressed, CompressReport

_MOST_ROWS = 24


def compress_page(report: CompressReport, name: str) -> str:
    """A model with weights in integers, as a page of HTML.

    Args:
        report: What `compress` reports.
        name: What the page calls the model.
    """
    lead = f"{plural(len(report.compressed), 'weight')} in integers with a scale for each block: "
    lead += f"the file is {report.ratio:.2f} times smaller."
    return page(name, lead, compress_figures(report), compress_sections(report))


def compress_figures(report: CompressReport) -> list[Figure]:
    """The numbers that matter most."""
    sizes = f"{size(report.bytes_before)} → {size(report.bytes_after)}"
    figures = [Figure("file", sizes, f"{report.ratio:.2f} times smaller")]
    if not isinstance(report.error, str):
        noise = f"{value(report.error.snr)} dB signal to noise"
        figures.append(Figure("outputs off by", small(report.error.relative_l2), noise))
    if report.compressed:
        ratios = [weight.snr for weight in report.compressed]
        least = f"least {value(min(ratios))} dB"
        figures.append(
            Figure("weights' signal to noise", f"{value(statistics.median(ratios))} dB", least)
        )
    count = len(report.compressed) + len(report.left)
    figures.append(Figure("weights in integers", f"{len(report.compressed)} of {count}"))
    return figures


def compress_sections(report: CompressReport) -> list[Section]:
    """The parts of the page, to be shown on others too."""
    sections = []
    if report.compressed:
        sections.append(Section("weights", "Weights in integers", _weights(report.compressed)))
    if report.left:
        lead = f"{plural(len(report.left), 'weight')} not in integers, and why."
        left = [Refused(weight.layer, "weight", weight.reason) for weight in report.left]
        sections.append(Section("left", "Left in float", grouped(left, lead)))
    return [*sections, Section("file", "File", _file(report))]


def _weights(compressed: Sequence[Compressed]) -> Markup:
    """What each weight lost and saved, those that lost most first."""
    worst = sorted(compressed, key=lambda weight: weight.snr)
    title = "Signal to noise ratio of the weights, dB"
    if len(worst) > _MOST_ROWS:
        title += f": the {_MOST_ROWS} that lost most"
    rows = [_row(weight) for weight in worst[:_MOST_ROWS]]
    most = max(weight.bytes_before for weight in compressed)
    lines: list[list[Child]] = [
        [
            weight.layer,
            shape(weight.shape),
            str(weight.bits),
            str(weight.block),
            f"{value(weight.snr)} dB",
            size(weight.bytes_before),
            size(weight.bytes_after),
            tag(
                "td",
                bar((weight.bytes_before / most, "first"), (weight.bytes_after / most, "second")),
                class_="plot",
            ),
        ]
        for weight in worst
    ]
    heads = ["layer", "shape", "bits", "block", "SNR", "before", "after", ""]
    return joined(
        tag("figure", tag("figcaption", title), dots(rows, title, title, log=False, unit="dB")),
        table("Weights, those that lost most first", heads, lines),
    )


def _row(weight: Compressed) -> Row:
    said = f"{value(weight.snr)} dB: {weight.layer}"
    return Row(said, (Dot(weight.snr, "second", f"{said}, {weight.bits} bits"),))


def _file(report: CompressReport) -> Markup:
    before, after = report.opset
    bits = Counter(weight.bits for weight in report.compressed)
    held: list[tuple[str, Child]] = [
        ("bytes before", exact(report.bytes_before)),
        ("bytes after", exact(report.bytes_after)),
        ("opset", str(after) if before == after else f"{before} → {after}"),
        ("values that share a scale, at most", str(report.block)),
        ("weights", ", ".join(f"{bits[n]} of {n} bits" for n in sorted(bits)) or "none"),
    ]
    if report.budget is not None:
        held.append(("error allowed", small(report.budget)))
    if report.folded is not None:
        held.append(("folds made first", exact(report.folded)))
    if isinstance(report.error, str):
        held.append(("outputs' error", f"not measured: {report.error}"))
    else:
        sets = f"{plural(report.error.samples, 'set')} of inputs, {report.error.inputs}"
        held.append(("outputs' error", f"{small(report.error.relative_l2)} on {sets}"))
    return facts(held)
