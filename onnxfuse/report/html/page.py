"""A page: head, summary, sections, foot; one file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from onnxfuse._version import __version__
from onnxfuse.report.html.element import Child, Markup, joined, tag
from onnxfuse.report.html.style import STYLE

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Figure:
    """A number of the summary.

    Attributes:
        label: What it is.
        value: The number, as it is shown.
        note: What else there is to say, in small print.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        key: Its anchor.
        title: Its heading.
        body: What it holds.
    """

    key: str
    title: str
    body: Markup


def page(
    title: str,
    lead: str,
    figures: Sequence[Figure],
    sections: Sequence[Section],
    verdict: Child = None,
) -> str:
    """A whole page.

    Args:
        title: Its title.
        lead: What it is about, below the title.
        figures: The numbers that matter, at the top.
        sections: Its parts; their keys differ.
        verdict: What stands out, between the two.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{title} - onnxfuse"),
        tag("style", Markup(STYLE)),
    )
    top = tag(
        "header",
        tag("h1", title),
        tag("p", lead),
        verdict,
        tag("dl", *map(_figure, figures), class_="figures"),
        _contents(sections) if len(sections) > 1 else None,
    )
    parts = [tag("section", tag("h2", s.title), s.body, id=s.key) for s in sections]
    foot = tag("footer", tag("p", f"onnxfuse {__version__}"))
    body = tag("body", top, tag("main", *parts), foot)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _figure(figure: Figure) -> Markup:
    note = tag("dd", figure.note) if figure.note else None
    return tag("div", tag("dt", figure.label), tag("dd", figure.value), note)


def _contents(sections: Sequence[Section]) -> Markup:
    links = [tag("a", section.title, href=f"#{section.key}") for section in sections]
    return tag("nav", *links, aria_label="Sections")


def scrolling(label: str, *children: Child) -> Markup:
    """A box that scrolls sideways where its content is wider than the page."""
    return tag("div", *children, class_="scroll", tabindex=0, role="group", aria_label=label)


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[Child]], text: Sequence[int] = ()
) -> Markup:
    """A table, in a box that scrolls.

    Args:
        caption: What it shows.
        heads: Its column heads.
        rows: Cells; the first of each is the head of the row. A cell that is a td element is taken
            as it is.
        text: Columns of text, which start at the left.
    """
    head = [
        tag("th", name, scope="col", class_="text" if index in text else None)
        for index, name in enumerate(heads)
    ]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(_cell(c, i in text) for i, c in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    return scrolling(
        caption,
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *head)),
            tag("tbody", *body),
        ),
    )


def _cell(content: Child, text: bool) -> Markup:
    if isinstance(content, Markup) and content.startswith("<td"):
        return content
    return tag("td", content, class_="text" if text else None)


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names and values."""
    return tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs), class_="facts")


def names(pairs: Sequence[tuple[str, str]]) -> Markup:
    """A list of names, each with a word behind it."""
    items = [tag("li", tag("code", name), " ", tag("span", word)) for name, word in pairs]
    return tag("ul", *items, class_="names")


def key(*entries: tuple[str, str]) -> Markup:
    """The key of a chart: (kind, meaning) of each."""
    return tag("ul", *(tag("li", text, class_=kind) for kind, text in entries), class_="key")


def more(summary: str, *children: Child, opened: bool = False) -> Markup:
    """What is there for those who open it."""
    return tag("details", tag("summary", summary), joined(*children), class_="more", open=opened)
