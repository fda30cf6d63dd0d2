import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfuse.report.html.element import Markup, joined, shown, tag
from onnxfuse.report.html.lettering import fitted, width
from tests.report.reading import read

TEXT = st.text(st.characters(exclude_categories=()))


@given(TEXT)
def test_text_comes_back_as_it_is_shown(text):
    page = read(tag("p", text, title=text))
    assert page.text == shown(text)
    assert page.one("p").attributes == {"title": shown(text)}


@given(TEXT)
def test_what_is_shown_can_be_printed_and_encoded(text):
    assert shown(text).isprintable()
    shown(text).encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb", r"a\nb"),
        ("\udc80", r"\udc80"),
        ("a\u202eb", r"a\u202eb"),
        ("\u2028", r"\u2028"),
        ("größe 大きさ", "größe 大きさ"),
    ],
)
def test_what_has_no_glyph_is_an_escape(text, said):
    assert shown(text) == said


def test_elements_nest_and_are_not_escaped_twice():
    made = tag("ul", tag("li", "a & b"), None, tag("li", "<b>", hidden=True, title=None))
    assert made == "<ul><li>a &amp; b</li><li hidden>&lt;b&gt;</li></ul>"
    assert isinstance(joined(made, "x"), Markup)


def test_names_of_attributes():
    made = tag("text", x=1.5, text_anchor="end", class_="a b", y=2)
    assert made == '<text x="1.5" text-anchor="end" class="a b" y="2"></text>'


def test_void_elements_have_no_end():
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


@given(st.text(max_size=60), st.floats(20, 300), st.booleans(), st.booleans())
def test_text_is_cut_to_fit(text, room, bold, end):
    cut = fitted(text, 12, room, bold=bold, end=end)
    assert width(cut, 12, bold=bold) <= room
    if cut != text:
        if end:
            assert cut.startswith("…")
            assert text.endswith(cut.removeprefix("…"))
        else:
            assert cut.endswith("…")
            assert text.startswith(cut.removesuffix("…"))
