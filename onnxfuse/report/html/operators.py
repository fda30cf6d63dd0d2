"""The section on operators before and after."""

from __future__ import annotations

from onnxfuse.report.html.chart import bar
from onnxfuse.report.html.element import Child, joined, tag
from onnxfuse.report.html.numbers import exact
from onnxfuse.report.html.page import Section, key, table
from onnxfuse.report.report import Report


def operators_section(report: Report) -> Section:
    """Every operator, how often it was there and is there now, as numbers and as bars."""
    before, after = report.before, report.after
    counts = {
        name: (before.operators.get(name, 0), after.operators.get(name, 0))
        for name in {*before.operators, *after.operators}
    }
    most = max((max(pair) for pair in counts.values()), default=1)
    rows: list[list[Child]] = []
    for name, (was, now) in sorted(counts.items(), key=lambda item: (-max(item[1]), item[0])):
        bars = bar((was / most, "first"), (now / most, "second"))
        rows.append([name, exact(was), exact(now), tag("td", bars, class_="plot")])
    sizes = ", ".join(f"{name} = {size}" for name, size in report.assumed.items())
    totals: list[list[Child]] = [
        ["nodes", exact(before.nodes), exact(after.nodes)],
        ["multiply-adds", exact(before.macs), exact(after.macs)],
        ["parameter bytes", exact(before.parameter_bytes), exact(after.parameter_bytes)],
    ]
    body = joined(
        key(("first", "before"), ("second", "after")),
        table("Nodes by operator", ["operator", "before", "after", ""], rows),
        table("The whole model", ["", "before", "after"], totals),
        tag("p", f"Multiply-adds are counted for {sizes}.", class_="soft") if sizes else None,
    )
    return Section("operators", "Operators", body)
