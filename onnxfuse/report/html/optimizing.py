"""The page of `optimize` and `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxfuse.report.html.distributions import weights_section
from onnxfuse.report.html.folds import folds_section
from onnxfuse.report.html.numbers import exact, plural, short, size, small
from onnxfuse.report.html.operators import operators_section
from onnxfuse.report.html.page import Figure, Section, page
from onnxfuse.report.html.refusals import refusals_section
from onnxfuse.report.html.stored import Stored
from onnxfuse.report.report import Report

if TYPE_CHECKING:
    from onnxfuse.benchmark.gate import Gate
    from onnxfuse.pipeline import OptimizeResult


def optimize_page(result: OptimizeResult, name: str) -> str:
    """What was folded and what was not, as a page of HTML.

    Args:
        result: What `optimize` gave.
        name: What the page calls the model.
    """
    report = result.report
    lead = f"{plural(len(report.folds), 'fold')}, from {exact(report.before.nodes)} nodes "
    lead += f"to {exact(report.after.nodes)}. The model computes the same, up to rounding."
    if report.denormals:
        lead += f" {plural(report.denormals, 'denormal number')} in weights set to zero."
    return page(name, lead, optimize_figures(report), optimize_sections(result))


def optimize_figures(report: Report) -> list[Figure]:
    """The numbers that matter most."""
    before, after = report.before, report.after
    worst = report.worst
    speed = [] if report.gate is None or isinstance(report.gate, str) else [_speed(report.gate)]
    sizes = (size(before.parameter_bytes), size(after.parameter_bytes))
    return [
        Figure(
            "nodes",
            f"{exact(before.nodes)} → {exact(after.nodes)}",
            _change(before.nodes, after.nodes),
        ),
        Figure(
            "multiply-adds",
            _arrow(short(before.macs), short(after.macs)),
            _change(before.macs, after.macs),
        ),
        Figure(
            "parameters", _arrow(*sizes), _change(before.parameter_bytes, after.parameter_bytes)
        ),
        Figure(
            "folds",
            exact(len(report.folds)),
            f"{plural(len(report.refusals), 'node')} refused",
        ),
        Figure("worst certificate", small(worst.error), f"{small(worst.allowed)} is allowed"),
        *speed,
    ]


def _speed(gate: Gate) -> Figure:
    times = _arrow(*(f"{1e3 * seconds:.3g} ms" for seconds in (gate.before, gate.after)))
    return Figure("speed here", f"{gate.ratio.value:.2f}x", f"{times} on {gate.provider}")


def optimize_sections(result: OptimizeResult) -> list[Section]:
    """The parts of the page, to be shown on others too."""
    report, stored = result.report, Stored(result)
    held = [stored.weight(fold) for fold in report.folds]
    there = [(number, weight) for number, weight in enumerate(held, 1) if weight is not None]
    sections = [
        operators_section(report),
        folds_section(report.folds, held),
        weights_section(there),
        refusals_section(report.refusals),
    ]
    return [section for section in sections if section is not None]


def _arrow(before: str, after: str) -> str:
    """Both, the unit once where it is the same: 231 → 202 KiB."""
    (number, *unit), (_, *other) = before.split(), after.split()
    return f"{number} → {after}" if unit == other else f"{before} → {after}"


def _change(before: int, after: int) -> str:
    """By how much it fell or rose, in words."""
    if not before or before == after:
        return "unchanged"
    part = abs(after - before) / before
    return f"{100 * part:.3g}% {'less' if after < before else 'more'}"
