"""What `onnxfuse check` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from onnxfuse.parity.approximation import decibels_in_words
from onnxfuse.parity.result import ULP_BINS, CheckResult, Divergence, OutputParity
from onnxfuse.report.markup import escape

MAX_ROWS = 40
MAX_NAMES = 12
MAX_REASONS = 8


def show_check(console: Console, result: CheckResult) -> None:
    """Prints a comparison: figures, distances from the truth, and the verdict.

    Args:
        console: Where to.
        result: The comparison.
    """
    if console.quiet:
        return
    for provider in dict.fromkeys(output.provider for output in result.outputs):
        own = [output for output in result.outputs if output.provider == provider]
        console.print(_figures(own, provider))
        if result.min_snr is not None:
            console.print(_ratios(own, provider, result.min_snr))
            continue
        if any(output.closeness and output.closeness.ulps for output in own):
            console.print(_ulps(own, provider))
        console.print(_distances(own, provider, result.truth))
    for line in _verdict(result):
        console.print(line, soft_wrap=True, highlight=False)


def _figures(outputs: Sequence[OutputParity], provider: str) -> Table:
    table = _table(f"Second model against first, {provider}", outputs)
    for column in ("max abs", "max rel", "rel. L2", "SNR dB", "1 - cos", "top-1", "in tol."):
        table.add_column(column, justify="right")
    for output in outputs[:MAX_ROWS]:
        close = output.closeness
        if close is None:
            table.add_row(_label(output, outputs), *["-"] * 7)
            continue
        table.add_row(
            _label(output, outputs),
            f"{close.max_abs:.1e}",
            f"{close.max_rel:.1e}",
            f"{close.relative_l2:.1e}",
            "-" if close.snr_db is None else f"{close.snr_db:.0f}",
            "-" if close.cosine is None else f"{1 - close.cosine:.0e}",
            "-" if close.top1 is None else f"{close.top1:.0%}",
            f"{close.within:.1%}".replace("100.0%", "100%"),
        )
    return table


def _ulps(outputs: Sequence[OutputParity], provider: str) -> Table:
    title = f"Share of elements by distance in units in the last place, {provider}"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    names = list(dict.fromkeys(output.output for output in outputs))
    if len(names) > 1:
        table.add_column("output", overflow="fold")
    for label in ULP_BINS:
        table.add_column(label.replace(" and more", "+"), justify="right")
    for name in names[:MAX_ROWS]:
        close = (o.closeness for o in outputs if o.output == name)
        counted = [c.ulps for c in close if c is not None and c.ulps]
        if counted:
            sums = [sum(bin_) for bin_ in zip(*counted, strict=True)]
            shares = (_share(count, sum(sums)) for count in sums)
            table.add_row(*([escape(name)] if len(names) > 1 else []), *shares)
    return table


def _share(count: int, of: int) -> str:
    share = 100 * count / of
    return f"{share:.0f}%" if share >= 9.95 or not count else f"{share:.2g}%"


def _distances(outputs: Sequence[OutputParity], provider: str, truth: str) -> Table:
    kind = truth if truth == "float64" else "the first model"
    table = _table(f"Distance from the truth ({kind}), {provider}", outputs)
    for column in ("first", "second", "may be off by", ""):
        table.add_column(column, justify="right")
    for output in outputs[:MAX_ROWS]:
        table.add_row(
            _label(output, outputs),
            f"{output.first_error:.1e}",
            f"{output.second_error:.1e}",
            f"{output.first_error + output.bound:.1e}",
            "agrees" if output.agrees else "[bold]differs[/bold]",
        )
    return table


def _ratios(outputs: Sequence[OutputParity], provider: str, min_snr: float) -> Table:
    table = _table(f"Signal to noise ratio in dB, {provider}", outputs)
    for column in ("as it runs", "as defined", "at least", ""):
        table.add_column(column, justify="right")
    for output in outputs[:MAX_ROWS]:
        said = "agrees" if output.agrees else "[bold]differs[/bold]"
        floating = output.closeness is not None and output.dtype.startswith("float")
        known = output.float64_error
        table.add_row(
            _label(output, outputs),
            decibels_in_words(output.second_error) if floating else "-",
            "-" if known is None else decibels_in_words(known),
            f"{min_snr:g}" if output.judged else "-",
            said if output.judged else "not judged",
        )
    return table


def _verdict(result: CheckResult) -> list[str]:
    lines = [f"[bold]note:[/bold] {escape(note)}" for note in result.notes]
    if result.truth != "float64" and result.min_snr is None:
        lines.append(f"[bold]note:[/bold] the truth is {escape(result.truth)}")
    reasons: dict[str, OutputParity] = {}
    for output in result.outputs:
        if not output.agrees:
            reasons.setdefault(f"{output.provider}: {output.output!r}: {output.reason}", output)
    lines += [
        escape(f"on {reason} (inputs: {output.inputs})")
        for reason, output in list(reasons.items())[:MAX_REASONS]
    ]
    worst = max(result.meanings, key=lambda meaning: meaning.error, default=None)
    if worst is not None and worst.agrees:
        share = f"{worst.error:.2f} of what roundings of constants explain"
        lines.append(f"in float64 every tensor agrees: off by at most {share}")
    elif worst is not None:
        channel = "" if worst.channel is None else f", channel {worst.channel}"
        off = f"{_times(worst.error)} what roundings of constants explain"
        where = f"{worst.tensor!r}{channel} is off by {off} (inputs: {worst.inputs})"
        lines.append(escape(f"in float64 {where}"))
    if result.divergence is not None:
        lines.append(_where(result.divergence))
    said = "agree" if result.agrees else "[bold]differ[/bold]"
    lines.append(f"{escape(result.first)} and {escape(result.second)} {said}{_asked(result)}")
    return lines


def _asked(result: CheckResult) -> str:
    """How near the second model is, and how near it was to be."""
    if result.min_snr is None:
        return ""
    errors = [o.second_error for o in result.outputs if o.judged and o.closeness is not None]
    if not errors:
        return f": {result.min_snr:g} dB were asked for"
    least = decibels_in_words(max(errors))
    return f": SNR {least} dB or more, and {result.min_snr:g} dB were asked for"


def _where(found: Divergence) -> str:
    channel = "" if found.channel is None else f", channel {found.channel}"
    names = [name for name, _ in found.replaced[:MAX_NAMES]]
    if len(found.replaced) > MAX_NAMES:
        names.append(f"and {len(found.replaced) - MAX_NAMES} more")
    fold = f" ({found.fold.formula})" if found.fold else ""
    text = (
        f"they part at {found.tensor!r}{channel}, {_times(found.error)} what rounding explains: "
        f"made by {found.made_by}{fold}, in place of {', '.join(names) or 'no node'}"
    )
    return escape(text)


def _times(ratio: float) -> str:
    return "infinitely many times" if ratio == float("inf") else f"{ratio:.3g} times"


def _table(title: str, outputs: Sequence[OutputParity]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("inputs", overflow="fold")
    if len(outputs) > MAX_ROWS:
        table.caption = f"and {len(outputs) - MAX_ROWS} more (--json lists all)"
    return table


def _label(output: OutputParity, outputs: Sequence[OutputParity]) -> str:
    """What a row is about: the inputs, and the output where there are several."""
    several = any(other.output != output.output for other in outputs)
    return escape(f"{output.output}: {output.inputs}" if several else output.inputs)
