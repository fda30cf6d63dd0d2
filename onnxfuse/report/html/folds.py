"""The section on folds: each before and after, with its certificate and its weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onnxfuse.certify import Certificate
from onnxfuse.fold import Fold
from onnxfuse.report.html.chart import strip
from onnxfuse.report.html.diagram import Diagram, draw
from onnxfuse.report.html.distributions import weight_view
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.numbers import exact, plural, shape, small
from onnxfuse.report.html.page import Section, facts, more, names, scrolling, table
from onnxfuse.report.html.region import after, before
from onnxfuse.report.html.stored import Held

OPEN = 3
_MANY = 8


def folds_section(folds: Sequence[Fold], held: Sequence[Held | None]) -> Section:
    """Every fold as a card, the first ones open.

    Args:
        folds: The folds.
        held: The weight that each has made, where it has.
    """
    cards = [
        fold_card(number, fold, weight, opened=number <= OPEN)
        for number, (fold, weight) in enumerate(zip(folds, held, strict=True), 1)
    ]
    certificates = [fold.certificate for fold in folds]
    if not folds:
        return Section("folds", "Folds", tag("p", "Nothing to fold.", class_="soft"))
    lead = (
        f"{plural(len(folds), 'fold')}, each certified: the replaced nodes and their replacement, "
        f"evaluated in float64 on random inputs, differ by {_most(certificates)}."
    )
    shares = [certificate.error / certificate.allowed for certificate in certificates]
    errors = strip(
        shares,
        1.0,
        "Errors of the certificates",
        f"{len(folds)} errors, the largest {small(max(shares))} of what is allowed",
    )
    body = joined(
        tag("p", lead),
        tag("figure", tag("figcaption", "Error of each certificate, of what is allowed"), errors),
        _kinds(folds) if len(folds) >= _MANY else None,
        *cards,
    )
    return Section("folds", "Folds", body)


def _most(certificates: Sequence[Certificate]) -> str:
    """The largest error, and what is allowed, for each kind of certificate."""
    kinds = sorted({certificate.allowed for certificate in certificates})
    worst = {kind: max(c.error for c in certificates if c.allowed == kind) for kind in kinds}
    parts = [f"{small(worst[kind])} ({small(kind)} is allowed)" for kind in kinds]
    where = ", or where numbers of an activation were rounded by "
    return f"{where.join(parts)} of the largest output at most"


def fold_title(fold: Fold) -> str:
    """What a fold made, such as "Conv: y = W * x + b, 3x3, 16 → 32"."""
    return f"{' + '.join(fold.nodes) or 'nothing'}: {fold.formula.replace('->', '→')}"


def fold_card(number: int | None, fold: Fold, held: Held | None, *, opened: bool) -> Markup:
    """One fold; the number is its anchor."""
    count = len(fold.replaced)
    change = f"{plural(count, 'node')} → {len(fold.nodes)}"
    error = f"error {small(fold.certificate.error)}"
    return tag(
        "details",
        tag(
            "summary",
            tag(
                "h3",
                tag("span", f"{number}", class_="number") if number else None,
                fold_title(fold),
            ),
            tag("span", f"{change}, {error}"),
        ),
        tag(
            "div",
            tag(
                "div",
                _figure(before(fold), f"Before: {plural(count, 'node')}", fold),
                _figure(after(fold), f"After: {plural(len(fold.nodes), 'node')}", fold),
                class_="change",
            ),
            tag("h4", "Certificate"),
            facts(_certificate(fold.certificate, fold.flushed)),
            weight_view(held) if held is not None else None,
            more(f"Names of {plural(count, 'replaced node')}", names(fold.replaced)),
        ),
        class_="fold",
        id=f"fold-{number}" if number else None,
        open=opened,
    )


def _figure(diagram: Diagram, caption: str, fold: Fold) -> Markup:
    operators = Counter(box.title for box in diagram.boxes if box.kind != "tensor")
    listed = ", ".join(f"{name} {count}" for name, count in operators.items()) or "nothing"
    said = f"From {fold.source} to {fold.target}: {listed}"
    return tag(
        "figure",
        tag("figcaption", caption),
        scrolling(caption, draw(diagram, caption, said)),
    )


def _certificate(certificate: Certificate, flushed: int) -> list[tuple[str, Child]]:
    pairs: list[tuple[str, Child]] = [
        ("largest relative difference", small(certificate.error)),
        ("probes", _shapes(certificate.shapes)),
    ]
    if certificate.stretches:
        pairs.append(("movement of data proved at", _shapes(certificate.stretches)))
    if certificate.border:
        pairs.append(("border within", small(certificate.border)))
    if flushed:
        pairs.append(("denormal numbers set to zero", f"{flushed:,}"))
    return pairs


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(shape, shapes))


def _kinds(folds: Sequence[Fold]) -> Markup:
    kinds = Counter((fold_title(fold), len(fold.replaced)) for fold in folds)
    rows: list[list[Child]] = [
        [title, exact(replaced), exact(count)] for (title, replaced), count in kinds.most_common()
    ]
    heads = ["made", "nodes replaced", "times"]
    return more(f"{plural(len(kinds), 'kind')} of fold", table("Folds by kind", heads, rows))
