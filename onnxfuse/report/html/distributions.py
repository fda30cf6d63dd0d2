"""How the distribution of a weight is shown."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfuse.report.html.chart import histogram
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.numbers import exact, plural, shape, share, small, value
from onnxfuse.report.html.page import Section, facts, table
from onnxfuse.report.html.stored import Held
from onnxfuse.report.html.weights import FIRST_POWER, LAST_POWER, Distribution


def weight_view(held: Held) -> Markup:
    """A weight: two histograms and the numbers."""
    d = held.distribution
    reach = max(abs(d.minimum), abs(d.maximum))
    return joined(
        tag("h4", f"Weight of the {held.operator}: {shape(held.shape)}, {d.dtype}"),
        tag(
            "div",
            tag(
                "figure",
                tag("figcaption", "Values (heights: square roots of counts)"),
                histogram(
                    d.values,
                    (value(-reach), "0", value(reach)),
                    "Histogram of the values",
                    f"{exact(d.count)} numbers from {value(d.minimum)} to {value(d.maximum)}",
                ),
            ),
            tag("figure", tag("figcaption", "Magnitudes, by power of two"), _magnitudes(d)),
            class_="charts",
        ),
        facts(_facts(d)),
    )


def _magnitudes(d: Distribution) -> Markup:
    """The histogram over powers of two, without the empty ends."""
    filled = [index for index, count in enumerate(d.powers) if count] or [0]
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 1, LAST_POWER - FIRST_POWER)
    low, high = FIRST_POWER + first, FIRST_POWER + last + 1
    middle = f"2^{(low + high) // 2}" if (low + high) % 2 == 0 else ""
    return histogram(
        d.powers[first : last + 1],
        (f"2^{low}", middle, f"2^{high}"),
        "Histogram of the magnitudes",
        f"Numbers by power of two, from 2^{low} to 2^{high}; {exact(d.zeros)} are 0",
    )


def _facts(d: Distribution) -> list[tuple[str, Child]]:
    pairs: list[tuple[str, Child]] = [
        ("smallest, largest", f"{value(d.minimum)}, {value(d.maximum)}"),
        ("zeros", _part(d.zeros, d.count)),
        (f"denormal in {d.dtype}", _part(d.denormals, d.count)),
        ("beyond float16", _warned(d.half_overflow, d.count)),
        ("denormal in float16", _part(d.half_denormals, d.count)),
        ("become 0 in float16", _part(d.half_vanishing, d.count)),
        ("int8 step, whole tensor", small(d.int8_scale)),
        ("become 0 in int8", _part(d.int8_vanishing, d.count)),
    ]
    if d.not_finite:
        pairs.insert(1, ("infinite or NaN", _warned(d.not_finite, d.count)))
    if d.channels is not None:
        c = d.channels
        steps = f"{small(c.smallest / 127)} to {small(c.largest / 127)}"
        pairs.append((f"int8 step, by channel ({c.count})", steps))
        pairs.append(("largest channel range / smallest", f"{value(c.ratio)}"))
        if c.zero:
            pairs.append(("channels that are all 0", exact(c.zero)))
    return pairs


def _part(count: int, total: int) -> str:
    return f"{exact(count)} ({share(count / total)})" if count and total else exact(count)


def _warned(count: int, total: int) -> Child:
    return tag("span", _part(count, total), class_="bad") if count else "0"


def weights_section(held: Sequence[tuple[int, Held]]) -> Section | None:
    """All weights in one table, for those who look for the odd one; None where there is none."""
    if not held:
        return None
    rows: list[list[Child]] = []
    for number, weight in held:
        d = weight.distribution
        link = tag("a", f"{number}", href=f"#fold-{number}")
        rows.append(
            [
                joined(link, f" {weight.operator}"),
                shape(weight.shape),
                value(d.minimum),
                value(d.maximum),
                exact(d.zeros),
                exact(d.denormals),
                _alarm(d.half_overflow),
                exact(d.half_denormals + d.half_vanishing),
                small(d.int8_scale),
                value(d.channels.ratio) if d.channels else "",
            ]
        )
    heads = ["fold", "shape", "min", "max", "zeros", "denormals", "beyond float16"]
    heads += ["float16 denormal or 0", "int8 step", "channel ratio"]
    ratios = [w.distribution.channels.ratio for _, w in held if w.distribution.channels]
    overflow = sum(bool(w.distribution.half_overflow) for _, w in held)
    said = (
        f"{plural(overflow, 'weight') if overflow else 'No weight'} with numbers beyond float16's "
    )
    said += "largest, 65504. "
    said += (
        "The channel ratio is the largest max|w| of an output channel over the smallest: where it "
    )
    said += "is high, one int8 scale for the whole tensor costs the small channels their precision"
    said += f" (highest here: {value(max(ratios))})." if ratios else "."
    body = joined(tag("p", said, class_="soft"), table("Weights of folded nodes", heads, rows))
    return Section("weights", "Weights", body)


def _alarm(count: int) -> Markup:
    return tag("td", exact(count), class_="warn" if count else None)
