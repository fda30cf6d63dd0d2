"""The page of `bench`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from onnxfuse.report.html.chart import Dot, Row, bar, dots
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.numbers import seconds, shape, share, size, value
from onnxfuse.report.html.page import Figure, Section, facts, page, table

if TYPE_CHECKING:
    from onnxfuse.benchmark.result import BenchResult, Interval, Timing

_MOST_FIGURES, _MOST_OPERATORS = 6, 12


def bench_page(result: BenchResult) -> str:
    """How fast models are, as a page of HTML."""
    models = dict.fromkeys(timing.model for timing in result.timings)
    return page("Latency", ", ".join(models), bench_figures(result), bench_sections(result))


def bench_figures(result: BenchResult) -> list[Figure]:
    """How much faster each model is than the first, where there is room to say it."""
    groups = [list(timings) for _, timings in _groups(result.timings)]
    return [
        Figure(
            f"{timing.model} on {timing.provider}, batch {timing.batch}",
            f"{value(timing.ratio.value)} x",
            f"as fast as {first.model} ({_ends(timing.ratio)})",
        )
        for first, *others in groups
        for timing in others
    ][:_MOST_FIGURES]


def bench_sections(result: BenchResult) -> list[Section]:
    """The parts of the page, to be shown on others too."""
    sections = [
        Section(f"latency-{number}", f"{provider}, batch {batch}", _group(list(timings)))
        for number, ((provider, batch), timings) in enumerate(_groups(result.timings), 1)
    ]
    profiled = [timing for timing in result.timings if timing.operators]
    if profiled:
        sections.append(
            Section("operator-time", "Time by operator", joined(*map(_shares, profiled)))
        )
    threads = "the runtime's choice" if result.threads is None else str(result.threads)
    held: list[tuple[str, Child]] = [
        ("threads", threads),
        ("runtime's own optimization", result.optimization),
        *result.config.items(),
        *result.machine.items(),
    ]
    notes = tag("ul", *(tag("li", note) for note in result.notes)) if result.notes else None
    sections.append(Section("machine", "Machine", joined(facts(held), notes)))
    return sections


def _groups(
    timings: Sequence[Timing],
) -> Iterator[tuple[tuple[str, int], Iterator[Timing]]]:
    return groupby(timings, key=lambda timing: (timing.provider, timing.batch))


def _group(timings: Sequence[Timing]) -> Markup:
    """Latency and ratio of the models on one provider at one batch size."""
    shapes = ", ".join(f"{name} {shape(held)}" for name, held in timings[0].shapes.items())
    latency = [_row(t, t.latency, index, 1e3, "ms") for index, t in enumerate(timings)]
    ratio = [_row(t, t.ratio, index, 1.0, "x", limit=1.0) for index, t in enumerate(timings)]
    title, said = "Latency", "median milliseconds of a run with 95% confidence intervals"
    heads = ["model", "latency", "95% interval", "ratio", "95% interval", "elements/s"]
    heads += ["peak memory", "session"]
    rows = [_line(timing) for timing in timings]
    return joined(
        tag("p", shapes, class_="soft"),
        tag(
            "div",
            tag(
                "figure",
                tag("figcaption", "Latency: median and 95% confidence interval"),
                dots(latency, title, said, log=False, unit="ms"),
            ),
            tag(
                "figure",
                tag("figcaption", "Speed against the first model, which stands at 1"),
                dots(
                    ratio, "Ratio", "time of the first model over this one's", log=False, unit="x"
                ),
            )
            if len(timings) > 1
            else None,
            class_="charts",
        ),
        table("Measurements", heads, rows),
    )


def _row(
    timing: Timing,
    interval: Interval,
    index: int,
    scale: float,
    unit: str,
    limit: float | None = None,
) -> Row:
    at, low, high = (n * scale for n in (interval.value, interval.low, interval.high))
    tip = f"{value(at)} {unit} ({value(low)} to {value(high)})"
    kind = "second" if index else "first"
    return Row(f"{timing.model}: {value(at)} {unit}", (Dot(at, kind, tip, low, high),), limit)


def _line(t: Timing) -> list[Child]:
    ends = (seconds(t.latency.low), seconds(t.latency.high))
    return [
        t.model,
        seconds(t.latency.value),
        " to ".join(ends),
        value(t.ratio.value),
        _ends(t.ratio),
        value(t.throughput),
        "" if t.peak_memory is None else size(t.peak_memory),
        seconds(t.session_seconds),
    ]


def _shares(timing: Timing) -> Markup:
    """Where the time of one model goes."""
    held = sorted(timing.operators.items(), key=lambda item: -item[1])
    rest = sum(part for _, part in held[_MOST_OPERATORS:])
    held = held[:_MOST_OPERATORS] + ([("all others", rest)] if rest else [])
    most = max(part for _, part in held) or 1.0
    rows: list[list[Child]] = [
        [name, share(part), tag("td", bar((part / most, "second")), class_="plot")]
        for name, part in held
    ]
    caption = f"{timing.model} on {timing.provider}, batch {timing.batch}"
    return table(caption, ["operator", "share of the time", ""], rows)


def _ends(interval: Interval) -> str:
    return f"{value(interval.low)} to {value(interval.high)}"
