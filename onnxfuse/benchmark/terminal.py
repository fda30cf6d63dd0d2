"""A measurement as tables in a terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from onnxfuse.benchmark.result import BenchResult, Interval, Timing
from onnxfuse.report.markup import escape

MOST_OPERATORS = 12


def show_bench(console: Console, result: BenchResult) -> None:
    """Prints a measurement: a table for each provider and set of inputs, then what explains it.

    Args:
        console: Where to.
        result: The measurement.
    """
    if console.quiet:
        return
    for _, group in itertools.groupby(result.timings, key=lambda t: (t.provider, str(t.shapes))):
        timings = list(group)
        console.print(_latencies(timings))
        if any(timing.operators for timing in timings):
            console.print(_operators(timings))
    rounds = sorted({len(timing.seconds) for timing in result.timings})
    counts = str(rounds[0]) if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    lines = [
        f"medians of {counts} round{'s' * (rounds[-1] != 1)} in turn, with 95% intervals; speedup: "
        "the first model's time over this one's, round by round",
        "MB: by how much the memory of a process grows; load: creating the session",
        _conditions(result),
        *result.notes,
    ]
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)


def _conditions(result: BenchResult) -> str:
    machine = result.machine
    if result.threads is None:
        threads = f"the runtime's choice of threads on {machine['cores']} cores"
    else:
        threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    config = "".join(f", {key}={value}" for key, value in result.config.items())
    return (
        f"{gpu}{machine['processor']}, {threads}; ONNX Runtime {machine['onnxruntime']}, "
        f"optimization {result.optimization}{config}"
    )


def _latencies(timings: Sequence[Timing]) -> Table:
    first = timings[0]
    shapes = ", ".join(f"{name} {_shape(shape)}" for name, shape in first.shapes.items())
    table = Table(title=escape(f"{first.provider}, batch {first.batch} ({shapes})"))
    table.add_column("model", overflow="fold")
    for column in ("ms", "speedup", "per s", "MB", "load, ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for timing in timings:
        memory = timing.peak_memory
        table.add_row(
            escape(timing.model),
            _interval(timing.latency, 1000),
            "1" if timing is first else speedup(timing.ratio),
            number(timing.throughput),
            "-" if memory is None else number(memory / 1e6),
            number(1000 * timing.session_seconds),
        )
    return table


def _operators(timings: Sequence[Timing]) -> Table:
    table = Table(title="Share of the time by operator, as the runtime runs them")
    table.add_column("", overflow="fold")
    for timing in timings:
        table.add_column(escape(timing.model), justify="right", overflow="fold")
    largest: dict[str, float] = {}
    for timing in timings:
        for name, share in timing.operators.items():
            largest[name] = max(share, largest.get(name, 0.0))
    names = sorted(largest, key=lambda name: (-largest[name], name))
    for name in names[:MOST_OPERATORS]:
        shares = (timing.operators.get(name) for timing in timings)
        table.add_row(escape(name), *("" if s is None else f"{s:.1%}" for s in shares))
    rest = names[MOST_OPERATORS:]
    if rest:
        sums = (sum(timing.operators.get(name, 0.0) for name in rest) for timing in timings)
        table.add_row(f"{len(rest)} more (--json lists all)", *(f"{share:.1%}" for share in sums))
    return table


def _interval(interval: Interval, factor: float) -> str:
    digits = _decimals(interval.value * factor)
    low, high = (f"{factor * end:,.{digits}f}" for end in (interval.low, interval.high))
    return f"{factor * interval.value:,.{digits}f}\n{low}-{high}"


def speedup(ratio: Interval) -> str:
    """A speedup and its interval; in words too where it is none."""
    words = "\nslower" if ratio.high < 1 else "\nno faster" if ratio.low <= 1 else ""
    return f"{ratio.value:.3f}\n{ratio.low:.3f}-{ratio.high:.3f}{words}"


def number(value: float) -> str:
    """A number with four digits, or all in front of the point."""
    return f"{value:,.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    return max(3 - math.floor(math.log10(value)), 0) if value > 0 else 0


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
