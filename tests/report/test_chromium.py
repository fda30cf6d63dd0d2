"""Pages as a person sees them: in a real Chromium, at the width of a phone and of a desk."""

import json

import numpy as np
import pytest

import onnxfuse
from onnxfuse.report.html import (
    bench_page,
    check_page,
    compress_page,
    optimize_page,
    quantize_page,
)
from scripts.bench_optimizer import multi_branch
from tests.report.building import checked, compressed, measured, quantized, two_branches
from tests.report.chromium import VARIABLE, Chromium, found
from tests.report.test_optimize_page import EXAMPLE, HOSTILE

pytestmark = pytest.mark.skipif(
    found() is None, reason=f"there is no Chromium here (apt install chromium, or set {VARIABLE})"
)
PHONE, DESK = 390, 1280
WIDTHS = {"phone": PHONE, "desk": DESK}
SECONDS = 20

# Elements that a person would have to scroll the page sideways to see. What scrolls in a box of
# its own is left out, and so is what is not drawn.
OUTSIDE = """
[...document.querySelectorAll('body *')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.width && !e.closest('.scroll') && !e.closest('svg')
    && (r.right > innerWidth + 1 || r.left < -1);
}).map(e => e.outerHTML.slice(0, 200))
"""
# Texts in drawings that stick out of their boxes, or that another box covers.
STICKING_OUT = """
[...document.querySelectorAll('svg.graph g')].filter(g => {
  const box = g.querySelector('rect').getBoundingClientRect();
  return box.width && [...g.querySelectorAll('text')].some(t => {
    const r = t.getBoundingClientRect();
    return r.left < box.left || r.right > box.right || r.top < box.top - 1
      || r.bottom > box.bottom + 1;
  });
}).map(g => g.textContent)
"""
# The contrast, by WCAG 2, of every text against the ground that it stands on, where it is low.
FAINT = """
(() => {
  const channels = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => channels(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    const rect = e.closest('svg.graph g')?.querySelector('rect');
    if (rect) return getComputedStyle(rect).fill;
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (channels(c)[3] !== 0) return c;
    }
  };
  const faint = {};
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!words || ['title', 'desc'].includes(e.tagName) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const text = e instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [light(text), light(ground(e))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faint[`${e.tagName} ${e.className.baseVal ?? e.className}`] = ratio;
  }
  return faint;
})()
"""
UNNAMED = """
[...document.querySelectorAll('summary, a')].filter(e => !e.textContent.trim()).length
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Chromium(found(), tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The files of some pages, by name."""
    folder = tmp_path_factory.mktemp("pages")
    example = onnxfuse.optimize(EXAMPLE)
    fold = example.report.folds[1]
    made = {
        "optimize": optimize_page(example, "three_branch.onnx"),
        "refused": optimize_page(onnxfuse.optimize(two_branches(), skip=["Add"]), "skipped.onnx"),
        "hostile": optimize_page(onnxfuse.optimize(two_branches("".join(HOSTILE))), HOSTILE[0]),
        "agree": check_page(checked(), example),
        "differ": check_page(checked(fold, agrees=False)),
        "bench": bench_page(measured()),
        "quantize": quantize_page(quantized(), "int8.onnx"),
        "compress": compress_page(compressed(30), "small.onnx"),
        "large": optimize_page(onnxfuse.optimize(multi_branch(2_000)), "large.onnx"),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


def complaints(browser):
    """What the console said: a policy that was broken, a file that is not there."""
    return [e["params"] for e in browser.events if e["method"] == "Log.entryAdded"]


def requests(browser):
    """Whatever the page asked of any network or disk, itself left out."""
    sent = [e["params"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    return [r["request"]["url"] for r in sent if r["type"] != "Document"]


KINDS = ("optimize", "refused", "hostile", "agree", "differ", "bench", "quantize", "compress")


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hangs_over_the_edge_of_the_page(browser, pages, kind, width):
    browser.open(pages[kind], width)
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("document.querySelectorAll('details').forEach(d => d.open = true)") is None
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(OUTSIDE) == []


@pytest.mark.parametrize("kind", KINDS)
def test_text_stays_in_its_box(browser, pages, kind):
    browser.open(pages[kind], DESK)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run(STICKING_OUT) == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_asks_for_nothing_and_breaks_no_rule(browser, pages, kind):
    browser.open(pages[kind])
    assert complaints(browser) == []
    assert requests(browser) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_text_stands_out_from_its_ground(browser, pages, kind, scheme):
    browser.open(pages[kind], DESK, scheme=scheme)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run(FAINT) == {}


def ground(picture):
    """The colour that most of the picture has, and the share of it that has another."""
    counts = np.bincount((picture.astype(int) @ (1 << 16, 1 << 8, 1)).ravel())
    most = int(counts.argmax())
    return np.array((*divmod(most >> 8, 1 << 8), most & 255)), 1 - counts[most] / counts.sum()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("kind", ["optimize", "differ", "bench"])
def test_screenshots(browser, pages, kind, width, scheme):
    height = 2400 if width == PHONE else 1600
    browser.open(pages[kind], width, height, scheme)
    picture = browser.screenshot()
    assert picture.shape == (height, width, 3)
    colour, ink = ground(picture)
    dark = scheme == "dark"
    assert colour.max() < 50 if dark else colour.min() > 235
    assert picture.mean() < 70 if dark else picture.mean() > 215
    # There is something to see from the top to the end of the window, or of the page.
    assert ink > 0.02
    page_end = int(min(browser.run("document.querySelector('footer').offsetTop"), height))
    for top in range(0, page_end - 200, 200):
        band = picture[top : top + 200].astype(int)
        assert band.max() - band.min() > 100, top
    # And the colours of both models, or of before and after.
    first, second = ((229, 163, 90), (108, 176, 242)) if dark else ((180, 95, 6), (11, 107, 203))
    for wanted in (first, second):
        assert np.any(np.abs(picture.astype(int) - wanted).sum(-1) < 12), wanted


def test_the_screenshot_of_a_title_is_the_title(browser, pages):
    browser.open(pages["optimize"])
    box = browser.run("JSON.stringify(document.querySelector('h1').getBoundingClientRect())")
    at = {name: round(value) for name, value in json.loads(box).items()}
    shot = browser.screenshot().mean(-1)
    title = shot[at["top"] : at["bottom"], at["left"] : at["left"] + 260]
    assert title.min() < 60  # dark letters
    assert 0.05 < np.mean(title < 128) < 0.5


def seen(browser):
    """The texts of headings that are drawn now."""
    return browser.run(
        "[...document.querySelectorAll('h1, h2, h3')].filter(e => e.getClientRects().length"
        " && e.checkVisibility()).map(e => e.textContent)"
    )


def test_a_person_sees_all_sections_and_folds(browser, pages):
    browser.open(pages["optimize"], PHONE)
    titles = seen(browser)
    assert titles[0] == "three_branch.onnx"
    assert {"Operators", "Folds", "Weights", "Left as they are"} <= set(titles)
    assert sum("Conv: y = W * x + b" in title for title in titles) == 6


def test_folds_open_and_close(browser, pages):
    browser.open(pages["optimize"])
    last = "document.querySelector('details.fold:last-of-type')"
    height = f"{last}.querySelector('svg.graph').getBoundingClientRect().height"
    visible = f"{last}.querySelector('svg.graph').checkVisibility()"
    assert not browser.run(visible)
    browser.run(f"{last}.querySelector('summary').click()")
    assert browser.run(visible)
    assert browser.run(height) > 100
    browser.run(f"{last}.querySelector('summary').click()")
    assert not browser.run(visible)


def test_links_lead_somewhere(browser, pages):
    browser.open(pages["optimize"], height=400)
    browser.run("document.querySelector('nav a[href=\"#weights\"]').click()")
    assert abs(browser.run("document.querySelector('#weights').getBoundingClientRect().top")) < 200
    browser.run("document.querySelector('#weights td a, #weights th a').click()")
    assert abs(browser.run("document.querySelector('#fold-1').getBoundingClientRect().top")) < 200
    assert browser.run(UNNAMED) == 0


def test_a_hostile_model_runs_nothing(browser, pages):
    browser.open(pages["hostile"])
    assert browser.run("document.scripts.length") == 0
    assert browser.run("document.images.length") == 0
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE[0]
    assert not [e for e in browser.events if e["method"] == "Page.javascriptDialogOpening"]


def test_paper_shows_what_is_closed(browser, pages):
    browser.open(pages["optimize"])
    browser.media(media="print")
    closed = "document.querySelector('details.fold:last-of-type svg.graph')"
    assert browser.run(f"{closed}.getBoundingClientRect().height") > 100
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.media(media="")


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_two_thousand_nodes(browser, pages, width):
    assert browser.open(pages["large"], width) < SECONDS
    assert browser.run("document.querySelectorAll('details.fold').length") == 250
    assert browser.run("document.documentElement.scrollWidth") == width
    _, ink = ground(browser.screenshot())
    assert ink > 0.02
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") == width
    drawn = "[...document.querySelectorAll('svg.graph')].every(s => s.clientHeight > 50)"
    assert browser.run(drawn)
