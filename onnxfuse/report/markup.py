"""Text from models and files, for rich."""

from __future__ import annotations

from rich.markup import escape as escape_markup

from onnxfuse.printing import printable


def escape(text: str) -> str:
    """Printable text that rich prints as it is, whatever brackets are in it."""
    return escape_markup(printable(text))
