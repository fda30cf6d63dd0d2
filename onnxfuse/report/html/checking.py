"""The page of `check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxfuse.parity.approximation import decibels_in_words
from onnxfuse.report.html.chart import Dot, Row, bar, dots
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.folds import fold_card
from onnxfuse.report.html.numbers import exact, plural, shape, share, small, value
from onnxfuse.report.html.optimizing import optimize_sections
from onnxfuse.report.html.page import Figure, Section, facts, key, more, names, page, table

if TYPE_CHECKING:
    from onnxfuse.parity.result import CheckResult, Divergence, Meaning, OutputParity
    from onnxfuse.pipeline import OptimizeResult

SHOWN = 40


def check_page(result: CheckResult, folded: OptimizeResult | None = None) -> str:
    """Whether two models compute the same, as a page of HTML.

    Args:
        result: What `check` gave.
        folded: How the second model was made of the first, where it was made here.
    """
    sections = check_sections(result)
    if folded is not None:
        sections += optimize_sections(folded)
    lead = f"{result.first} against {result.second}"
    return page("Parity", lead, check_figures(result), sections, _verdict(result))


def check_figures(result: CheckResult) -> list[Figure]:
    """The numbers that matter most."""
    wrong = sum(not o.agrees for o in result.outputs)
    close = [o.closeness for o in result.outputs if o.closeness is not None]
    cases = {(o.provider, o.inputs) for o in result.outputs}
    limit = "rounding" if result.min_snr is None else f"{result.min_snr:g} dB allow"
    figures = [
        Figure(
            "outputs compared", exact(len(result.outputs)), plural(len(cases), "set") + " of inputs"
        ),
        Figure(f"differ by more than {limit}", exact(wrong)),
    ]
    if close:
        figures.append(
            Figure(
                "largest relative difference",
                small(max(c.relative_l2 for c in close)),
                f"largest absolute: {small(max(c.max_abs for c in close))}",
            )
        )
    if result.meanings:
        worst = max(m.error for m in result.meanings)
        figures.append(Figure("in float64", value(worst), "of what rounded constants explain"))
    return figures


def check_sections(result: CheckResult) -> list[Section]:
    """The parts of the page, to be shown on others too."""
    sections = []
    if result.divergence is not None:
        sections.append(_divergence(result.divergence))
    if result.outputs:
        sections += [_distances(result), _outputs(result.outputs, result.min_snr is not None)]
        if result.min_snr is None:
            sections.append(_ulps(result.outputs))
    if result.meanings:
        sections.append(_meanings(result.meanings))
    if result.notes:
        notes = tag("ul", *(tag("li", note) for note in result.notes))
        sections.append(Section("notes", "Notes", notes))
    return sections


def _verdict(result: CheckResult) -> Markup:
    if result.agrees:
        why = "rounding explains every difference"
        if result.min_snr is not None:
            why = f"every floating output has an SNR of {result.min_snr:g} dB or more"
        return tag("p", f"They agree: {why}.", class_="verdict good")
    reasons = dict.fromkeys(o.reason for o in result.outputs if not o.agrees)
    said = "; ".join(reasons) or "their constants differ by more than roundings"
    return tag("p", f"They differ: {said}.", class_="verdict bad")


def _distances(result: CheckResult) -> Section:
    """How far both are from the truth, in every case."""
    rows = [_distance(o) for o in sorted(result.outputs, key=lambda o: o.agrees)]
    title = "Distance from the truth"
    said = "relative L2 distance of both models, logarithmic, with the limit for the second"
    farthest = "the farthest that rounding explains for the second"
    if result.min_snr is not None:
        title = "Distance from the first model"
        farthest = f"{result.min_snr:g} dB, where it is judged"

    def chart(part: Sequence[Row]) -> Markup:
        return dots(part, title, said, log=True)

    rest = rows[SHOWN:]
    body = joined(
        tag("p", f"The truth: {result.truth}. Relative L2 distance, logarithmic."),
        key(
            ("first", result.first),
            ("second", result.second),
            ("limit", farthest),
        ),
        chart(rows[:SHOWN]),
        more(f"{len(rest)} more", chart(rest)) if rest else None,
    )
    return Section("distances", title, body)


def _distance(o: OutputParity) -> Row:
    where = f"{o.output}, {o.inputs}, {o.provider}"
    return Row(
        where if o.agrees else f"✗ {where}",
        (
            Dot(o.first_error, "first", f"first: {small(o.first_error)}"),
            Dot(o.second_error, "second", f"second: {small(o.second_error)}"),
        ),
        o.first_error + o.bound if o.judged else None,
    )


def _outputs(outputs: Sequence[OutputParity], approximate: bool) -> Section:
    heads = ["output", "inputs", "on", "type", "shape", "verdict", "relative L2", "largest"]
    heads += ["SNR, dB", "cosine", "same top 1", "close"]
    if approximate:
        heads.append("SNR in float64, dB")
    rows: list[list[Child]] = []
    for o in outputs:
        verdict = _word(o.agrees, o.reason) if o.judged else tag("span", "not judged")
        row: list[Child] = [o.output, o.inputs, o.provider, o.dtype, shape(o.shape), verdict]
        c = o.closeness
        if c is not None:
            row += [small(c.relative_l2), small(c.max_abs), _known(c.snr_db, "{:.1f}")]
            row += [_known(c.cosine, "{:.9g}"), "" if c.top1 is None else share(c.top1)]
            row.append(share(c.within))
            if approximate and o.float64_error is not None:
                row.append(decibels_in_words(o.float64_error))
        rows.append(row + [""] * (len(heads) - len(row)))
    said = "Close: |a - b| <= 1e-5 + 1e-3 |a|, as numpy.isclose has it."
    body = joined(table("The second model's outputs against the first's", heads, rows, text=(1, 5)))
    return Section("outputs", "Outputs", joined(body, tag("p", said, class_="soft")))


def _ulps(outputs: Sequence[OutputParity]) -> Section:
    """How many units in the last place apart, for each output over all cases."""
    from onnxfuse.parity.result import ULP_BINS

    sums: dict[str, list[int]] = {}
    for o in outputs:
        if o.closeness is not None and o.closeness.ulps:
            total = sums.setdefault(o.output, [0] * len(ULP_BINS))
            sums[o.output] = [a + b for a, b in zip(total, o.closeness.ulps, strict=True)]
    tables = []
    for name, counts in sums.items():
        most = max(counts) or 1
        rows: list[list[Child]] = [
            [label, exact(count), tag("td", bar((count / most, "second")), class_="plot")]
            for label, count in zip(ULP_BINS, counts, strict=True)
        ]
        tables.append(table(name, ["units apart", "elements", ""], rows))
    body = joined(*tables) or tag("p", "No output holds floating numbers.", class_="soft")
    return Section("ulps", "Units in the last place", body)


def _meanings(meanings: Sequence[Meaning]) -> Section:
    said = (
        "Both models evaluated in float64, so that no arithmetic is rounded: the largest distance "
        "in any channel over what roundings of the stored constants explain there. 1 is the limit."
    )
    heads = ["tensor", "inputs", "verdict", "distance / limit", "channel"]
    rows: list[list[Child]] = [
        [
            tag("code", m.tensor),
            m.inputs,
            _word(m.agrees, "differ"),
            value(m.error),
            _known(m.channel, "{}"),
        ]
        for m in meanings
    ]
    return Section(
        "float64", "In float64", joined(tag("p", said), table("Tensors", heads, rows, (1,)))
    )


def _divergence(divergence: Divergence) -> Section:
    d = divergence
    pairs: list[tuple[str, Child]] = [
        ("tensor", tag("code", d.tensor)),
        ("in the first model", tag("code", d.counterpart) if d.counterpart else "not there"),
        ("made by", d.made_by),
        ("distance / what rounding explains", value(d.error)),
        ("channel", _known(d.channel, "{}") or "all"),
        ("seen on", d.provider),
        ("inputs", d.inputs),
    ]
    body = joined(
        tag("p", "The first tensor where the two models are further apart than rounding explains."),
        facts(pairs),
        more(f"Stands for {plural(len(d.replaced), 'node')}", names(d.replaced), opened=True)
        if d.replaced
        else None,
        fold_card(None, d.fold, None, opened=True) if d.fold is not None else None,
    )
    return Section("divergence", "Where they part", body)


def _word(agrees: bool, reason: str) -> Markup:
    return tag("span", "agree" if agrees else reason, class_="good" if agrees else "bad")


def _known(number: float | None, form: str) -> str:
    return "" if number is None else form.format(number)
