"""Text from files on a terminal: nothing in it steers one."""

import io

import pytest
from rich.console import Console

from onnxfuse.printing import printable
from onnxfuse.report.markup import escape

STEERING = {
    "\x1b[2J": r"\x1b[2J",
    "\x9b2J": r"\x9b2J",
    "\0": r"\x00",
    "\r": r"\r",
    "\n": r"\n",
    "\x7f": r"\x7f",
    "\u202e": r"\u202e",
    "\u2028": r"\u2028",
    "\u200b": r"\u200b",
    "\ufeff": r"\ufeff",
    "\U000e0001": r"\U000e0001",
    "\udc80": r"\udc80",
}


@pytest.mark.parametrize(("text", "written_out"), STEERING.items(), ids=ascii)
def test_what_steers_a_terminal_is_written_out(text, written_out):
    assert printable(f"a {text}b") == f"a {written_out}b"
    assert printable(f"a {text}b").isprintable()


@pytest.mark.parametrize("text", ["", "block.0/Conv", "größe 画像 𝔵", "a \\x1b [b]", "%s {0} [/]"])
def test_other_text_is_as_it_was(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", ["[red]a[/red]", "[/]", "a[b", "\\[b]", "[link=x]\x1b[/link]"])
def test_brackets_are_printed_and_not_obeyed(text):
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(escape(text), highlight=False)
    assert console.file.getvalue() == printable(text) + "\n"
