from dataclasses import replace

import pytest

from onnxfuse.report.html import quantize_page
from onnxfuse.report.html.element import shown
from tests.report.building import quantized
from tests.report.reading import facts, figures, read
from tests.report.test_optimize_page import HOSTILE


@pytest.fixture(scope="module")
def page():
    return read(quantize_page(quantized(), "model.onnx"))


def section(page, key):
    return next(s for s in page.all("section") if s.attributes["id"] == key)


def test_the_summary_is_of_the_form_that_was_written(page):
    assert page.one("h1").text == "model.onnx"
    held = figures(page)
    assert held["layers in int8"] == ["8 of 9"]
    assert held["signal to noise"] == ["31.5 dB", "relative L2 2.7e-02 off the float model"]
    assert held["top-1"] == ["98.00%", "float: 99.00%"]
    assert held["speed"] == ["1.6 x", "of float, folded"]
    assert held["file"] == ["1 MiB", "4 times smaller than float"]


def test_without_a_comparison():
    page = read(quantize_page(quantized(forms=()), "model.onnx"))
    assert list(figures(page)) == ["layers in int8"]
    assert "forms" not in [s.attributes["id"] for s in page.all("section")]


def test_without_labels():
    report = quantized()
    unlabelled = {
        form.name: replace(form, quality=form.quality and replace(form.quality, accuracy=None))
        for form in report.forms
    }
    page = read(quantize_page(replace(report, forms=tuple(unlabelled.values())), "model.onnx"))
    assert "top-1" not in figures(page)
    assert {row[1] for row in section(page, "forms").one("table").rows()[1:]} == {"-"}


def test_the_charts(page):
    near, fast = section(page, "forms").all("svg", "chart")
    assert [label.text for label in near.all("text", "label")] == [
        "float, folded: 120.5 dB",
        "int8, folded: 12.25 dB",
        "int8, folded, equalized: 31.5 dB",
    ]
    assert len(list(fast.all("circle"))) == len(list(fast.all("line", "whisker"))) == 4
    assert [dot.attributes["class"] for dot in near.all("circle")] == [
        "dot first",
        "dot second",
        "dot second",
    ]


def test_the_table(page):
    rows = section(page, "forms").one("table").rows()
    assert rows[1] == ["float", "99.00%", "-", "-", "4 MiB", "3 ms", "0.6667 (0.64 to 0.6867)"]
    assert rows[3] == ["int8", *["-"] * 6]
    assert rows[5][:4] == ["int8, folded, equalized", "98.00%", "31.5 dB", "2.7e-02"]
    assert "the quantizer does not know it" in section(page, "forms").text


def test_what_it_is_judged_on(page):
    lead = section(page, "forms").one("p").text
    assert lead == "Compared over 1 run of others.npz."
    own = read(quantize_page(quantized(evaluation="images"), "model.onnx"))
    assert section(own, "forms").one("p").text.endswith("images, which it was calibrated with.")


def test_layers(page):
    found = section(page, "layers")
    assert found.one("table").rows()[1:] == [["Conv", "7", "8"], ["Gemm", "1", "1"]]
    assert facts(found) == {"ranges by": "minmax", "weights": "7 bits: sums saturate"}


def test_equalized(page):
    found = section(page, "equalized")
    assert found.one("p").text == (
        "2 scaled, 1 split; each proved in float64 (largest difference 4.0e-16)."
    )
    assert found.one("table").rows()[2] == ["b", "PRelu", "scaled", "4.0e-16"]
    plain = read(quantize_page(quantized(equalized=()), "model.onnx"))
    assert "equalized" not in [s.attributes["id"] for s in plain.all("section")]


def test_left_in_float(page):
    found = section(page, "left")
    assert "1 layer that stays float, and why." in found.text
    assert found.one("h3").text == "it is to stay float"
    plain = read(quantize_page(quantized(left=()), "model.onnx"))
    assert "left" not in [s.attributes["id"] for s in plain.all("section")]


def test_the_machine(page):
    found = section(page, "machine")
    assert facts(found)["threads"] == "the runtime's choice"
    assert found.one("li").text == "the model is float16"
    assert (
        facts(section(read(quantize_page(quantized(threads=2), "m")), "machine"))["threads"] == "2"
    )


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_stays_a_name(name):
    report = quantized(calibration=name, notes=(name,))
    page = read(quantize_page(report, name))
    assert page.one("h1").text == shown(name)
    assert section(page, "machine").one("li").text == shown(name)
