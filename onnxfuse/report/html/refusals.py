"""The section on what was left as it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from onnxfuse.report.html.element import Markup, joined, tag
from onnxfuse.report.html.numbers import plural
from onnxfuse.report.html.page import Section, more, names
from onnxfuse.report.report import Refused

_FEW = 3


def refusals_section(refusals: Sequence[Refused]) -> Section:
    """Every refusal, grouped by its reason, the most frequent first."""
    if not refusals:
        body = tag("p", "No node that could have been folded was left as it is.", class_="soft")
        return Section("refused", "Left as they are", body)
    lead = (
        f"{plural(len(refusals), 'node')} with an operator that folds elsewhere, and why not here."
    )
    return Section("refused", "Left as they are", grouped(refusals, lead))


def grouped(refusals: Sequence[Refused], lead: str) -> Markup:
    """Refusals by their reason, the most frequent first, behind a sentence."""
    by_reason: dict[str, list[Refused]] = defaultdict(list)
    for refused in refusals:
        by_reason[_gist(refused)].append(refused)
    groups = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return joined(tag("p", lead), *(_group(*group) for group in groups))


def _gist(refused: Refused) -> str:
    """The reason without what is particular to the node."""
    return refused.reason.split(" (", 1)[0]


def _group(reason: str, refusals: Sequence[Refused]) -> Markup:
    operators = Counter(refused.operator for refused in refusals)
    counted = ", ".join(f"{name} {count}" for name, count in operators.most_common())
    listed = names([(r.node, f"{r.operator}{r.reason[len(reason) :]}") for r in refusals])
    return tag(
        "div",
        tag("h3", reason),
        tag("p", counted, class_="soft"),
        more(plural(len(refusals), "node"), listed, opened=len(refusals) <= _FEW),
        class_="reason",
    )
