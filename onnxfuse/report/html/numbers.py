"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable

from onnxfuse.graph import Dim

_DECIMAL = ("", "k", "M", "G", "T", "P")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


def exact(number: int) -> str:
    """12345 as 12,345."""
    return f"{number:,}"


def short(number: float) -> str:
    """12345 as 12.3 k."""
    return _scaled(number, 1000, _DECIMAL)


def size(count: int) -> str:
    """12345 bytes as 12.1 KiB."""
    return _scaled(count, 1024, _BINARY)


def small(number: float) -> str:
    """A distance: 0.000123 as 1.2e-04, and 0 as 0."""
    return f"{number:.1e}" if number else "0"


def value(number: float) -> str:
    """A value to four digits."""
    return f"{number:.4g}"


def seconds(duration: float) -> str:
    """A duration in the unit that fits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if duration >= scale:
            return f"{duration / scale:.4g} {unit}"
    return f"{duration / 1e-6:.4g} us"


def share(part: float) -> str:
    """0.0123 as 1.2%; what is above 0 is never 0%."""
    if 0 < part < 0.0005:
        return "<0.1%"
    return f"{100 * part:.3g}%"


def shape(extents: Iterable[Dim] | None) -> str:
    """A shape as 1x16xhx?; nothing where it is not known."""
    if extents is None:
        return ""
    return "x".join("?" if extent is None else str(extent) for extent in extents)


def plural(count: int, word: str) -> str:
    """1 node, 2 nodes."""
    return f"{count:,} {word}" + "s" * (count != 1)


def _scaled(number: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(number) >= step and power < len(units) - 1:
        number, power = number / step, power + 1
    digits = (
        f"{number:g}" if not power else f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"
    )
    return f"{digits} {units[power]}".strip()
