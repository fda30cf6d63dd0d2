"""Elements of HTML and SVG as strings in which nothing a model holds can become markup."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"meta", "br", "col"})


class Markup(str):
    """Text that is HTML already; only `tag` and `joined` make it."""

    __slots__ = ()


Child = str | None
"""Text, which is escaped, or Markup, which is not; None is nothing."""


def shown(text: str) -> str:
    r"""Text as it can be shown: what has no glyph, or turns others around, as an escape like \x1b.

    Names in a model may hold control characters, surrogates and marks that change the direction of
    writing; none of them reaches the page.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element.

    Args:
        name: Its name.
        children: What it holds.
        attributes: By name, `class_` for class and `_` for a hyphen. True is an attribute without
            a value; False and None are none at all.
    """
    held = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{held}>")
    return Markup(f"<{name}{held}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Several children in a row."""
    return Markup("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Markup) else escape(shown(child), quote=False)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(shown(text))}"'
