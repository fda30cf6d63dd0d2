"""The page of `quantize`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxfuse.report.html.chart import Dot, Row, dots
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.numbers import plural, seconds, size, small, value
from onnxfuse.report.html.page import Figure, Section, facts, more, names, page, table
from onnxfuse.report.html.refusals import grouped

if TYPE_CHECKING:
    from onnxfuse.benchmark.result import Interval
    from onnxfuse.equalization import Equalized
    from onnxfuse.quantization import QuantizeReport
    from onnxfuse.quantization.report import Form

_NONE = "-"


def quantize_page(report: QuantizeReport, name: str) -> str:
    """A model in int8 and what it was before, as a page of HTML.

    Args:
        report: What `quantize` reports.
        name: What the page calls the model.
    """
    lead = f"In int8, calibrated with {plural(report.calibrated, 'run')} of {report.calibration}."
    return page(name, lead, quantize_figures(report), quantize_sections(report))


def quantize_figures(report: QuantizeReport) -> list[Figure]:
    """The numbers that matter most: of the last form, which was written."""
    counts = [(q.count, q.total) for q in report.operators]
    layers = Figure("layers in int8", f"{sum(n for n, _ in counts)} of {sum(n for _, n in counts)}")
    if not report.forms or report.forms[-1].quality is None:
        return [layers]
    first, last = report.forms[0], report.forms[-1]
    assert last.quality is not None
    figures = [layers]
    if last.quality.snr is not None:
        against = f"relative L2 {small(last.quality.error or 0.0)} off the float model"
        figures.append(Figure("signal to noise", f"{value(last.quality.snr)} dB", against))
    if last.quality.accuracy is not None and first.quality is not None:
        before = f"float: {first.quality.accuracy:.2%}"
        figures.append(Figure("top-1", f"{last.quality.accuracy:.2%}", before))
    if last.ratio is not None:
        figures.append(Figure("speed", f"{value(last.ratio.value)} x", "of float, folded"))
    if first.file_bytes and last.file_bytes:
        smaller = f"{first.file_bytes / last.file_bytes:.3g} times smaller than float"
        figures.append(Figure("file", size(last.file_bytes), smaller))
    return figures


def quantize_sections(report: QuantizeReport) -> list[Section]:
    """The parts of the page, to be shown on others too."""
    sections = [Section("forms", "Forms of the model", _forms(report))] if report.forms else []
    sections.append(Section("layers", "Layers in int8", _layers(report)))
    if report.equalized:
        sections.append(Section("equalized", "Equalized first", _equalized(report.equalized)))
    if report.left:
        count = len(report.left)
        lead = f"{plural(count, 'layer')} that {'stays' if count == 1 else 'stay'} float, and why."
        sections.append(Section("left", "Left in float", grouped(report.left, lead)))
    threads = "the runtime's choice" if report.threads is None else str(report.threads)
    held: list[tuple[str, Child]] = [("threads", threads), *report.machine.items()]
    notes = tag("ul", *(tag("li", note) for note in report.notes)) if report.notes else None
    return [*sections, Section("machine", "Machine", joined(facts(held), notes))]


# Forms -------------------------------------------------------------------------------------------


def _forms(report: QuantizeReport) -> Markup:
    """How near each form is to the float model, and how fast."""
    compared = f"Compared over {plural(report.evaluated, 'run')} of {report.evaluation}"
    same = ", which it was calibrated with" * (report.evaluation == report.calibration)
    ran = [form for form in report.forms if form.quality is not None]
    near = [row for form in ran if (row := _snr(form)) is not None]
    fast = [row for form in ran if (row := _latency(form)) is not None]
    charts = [
        ("Signal to noise ratio of the outputs, dB: more is nearer to float", near, "dB"),
        ("Latency: median and 95% confidence interval", fast, "ms"),
    ]
    failed = [(form.name, form.failure) for form in report.forms if form.failure]
    return joined(
        tag("p", f"{compared}{same}.", class_="soft"),
        tag(
            "div",
            *(
                tag("figure", tag("figcaption", words), dots(rows, words, words, log=False, unit=u))
                for words, rows, u in charts
                if rows
            ),
            class_="charts",
        ),
        table("Forms", _HEADS, [_line(form) for form in report.forms]),
        names(failed) if failed else None,
    )


_HEADS = ("form", "top-1", "SNR", "relative L2", "file", "latency", "against float, folded")


def _snr(form: Form) -> Row | None:
    """A row of the chart; None for the model that the others are compared with."""
    if form.quality is None or form.quality.snr is None:
        return None
    said = f"{value(form.quality.snr)} dB"
    return Row(f"{form.name}: {said}", (Dot(form.quality.snr, _kind(form), said),))


def _latency(form: Form) -> Row | None:
    if form.latency is None:
        return None
    at, low, high = (1e3 * n for n in (form.latency.value, form.latency.low, form.latency.high))
    tip = f"{value(at)} ms ({value(low)} to {value(high)})"
    return Row(f"{form.name}: {value(at)} ms", (Dot(at, _kind(form), tip, low, high),))


def _kind(form: Form) -> str:
    return "second" if form.name.startswith("int8") else "first"


def _line(form: Form) -> list[Child]:
    quality = form.quality
    if quality is None:
        return [form.name, *[_NONE] * (len(_HEADS) - 1)]
    return [
        form.name,
        _NONE if quality.accuracy is None else f"{quality.accuracy:.2%}",
        _NONE if quality.snr is None else f"{value(quality.snr)} dB",
        _NONE if quality.error is None else small(quality.error),
        _NONE if form.file_bytes is None else size(form.file_bytes),
        _NONE if form.latency is None else seconds(form.latency.value),
        _NONE if form.ratio is None else _ratio(form.ratio),
    ]


def _ratio(ratio: Interval) -> str:
    return f"{value(ratio.value)} ({value(ratio.low)} to {value(ratio.high)})"


# What it is made of ------------------------------------------------------------------------------


def _layers(report: QuantizeReport) -> Markup:
    rows: list[list[Child]] = [[q.operator, str(q.count), str(q.total)] for q in report.operators]
    held: list[tuple[str, Child]] = [
        ("ranges by", report.method),
        ("weights", f"{report.weight_bits} bits: {report.weight_bits_reason}"),
    ]
    return joined(facts(held), table("Layers", ["operator", "in int8", "of"], rows))


def _equalized(nodes: Sequence[Equalized]) -> Markup:
    """What was changed so that 8 bits hold it better, with the proofs."""
    counts = Counter(node.change for node in nodes)
    worst = max(node.certificate.error for node in nodes)
    lead = ", ".join(f"{count} {change}" for change, count in counts.items())
    rows: list[list[Child]] = [
        [node.node, node.operator, node.change, small(node.certificate.error)] for node in nodes
    ]
    shown = table("Nodes", ["node", "operator", "change", "largest difference"], rows, text=(1, 2))
    return joined(
        tag("p", f"{lead}; each proved in float64 (largest difference {small(worst)})."),
        more(plural(len(nodes), "node"), shown),
    )
