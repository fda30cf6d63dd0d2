"""How wide text will be, without a browser to ask: wide enough for the common sans-serif fonts."""

from __future__ import annotations

from unicodedata import east_asian_width

_WIDTHS = {
    **dict.fromkeys("ijl|'.,:;!` I[]()/\\", 0.42),
    **dict.fromkeys('frt-"{}', 0.48),
    **dict.fromkeys("mwMWQOGDN%@+<>=~#×→–", 0.92),
    **dict.fromkeys("W@mM", 1.03),
}
_LOWER, _UPPER, _OTHER, _WIDE = 0.645, 0.76, 0.9, 1.1
_BOLD = 1.12
ELLIPSIS = "…"


def width(text: str, size: float, *, bold: bool = False) -> float:
    """An upper estimate of the width of a line of text, in the unit of `size`."""
    return sum(map(_width, text)) * size * (_BOLD if bold else 1.0)


def fitted(text: str, size: float, limit: float, *, bold: bool = False, end: bool = False) -> str:
    """The text, or an ellipsis and as much of its beginning, or end, as fits the limit."""
    if width(text, size, bold=bold) <= limit:
        return text
    room = limit - width(ELLIPSIS, size, bold=bold)
    kept = 0
    for character in reversed(text) if end else text:
        room -= width(character, size, bold=bold)
        if room < 0:
            break
        kept += 1
    return ELLIPSIS + text[len(text) - kept :].lstrip() if end else text[:kept].rstrip() + ELLIPSIS


def _width(character: str) -> float:
    known = _WIDTHS.get(character)
    if known is not None:
        return known
    if character.isascii():
        return _UPPER if character.isupper() else _LOWER
    return _WIDE if east_asian_width(character) in "WF" else _OTHER
