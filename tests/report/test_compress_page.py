import pytest

from onnxfuse.report.html import compress_page
from onnxfuse.report.html.element import shown
from tests.report.building import compressed
from tests.report.reading import facts, figures, read
from tests.report.test_optimize_page import HOSTILE


@pytest.fixture(scope="module")
def page():
    return read(compress_page(compressed(), "model.onnx"))


def section(page, key):
    return next(s for s in page.all("section") if s.attributes["id"] == key)


def test_the_summary(page):
    assert page.one("h1").text == "model.onnx"
    held = figures(page)
    assert held["file"] == ["40 KiB → 8 KiB", "5.00 times smaller"]
    assert held["outputs off by"] == ["1.2e-02", "38.2 dB signal to noise"]
    assert held["weights' signal to noise"] == ["29 dB", "least 28 dB"]
    assert held["weights in integers"] == ["3 of 4"]


def test_weights_that_lost_most_come_first(page):
    rows = section(page, "weights").one("table").rows()[1:]
    assert [row[0] for row in rows] == ["conv2", "conv1", "conv0"]
    assert rows[0][1:7] == ["8x4x3x3", "4", "32", "28 dB", "1.12 KiB", "200 B"]
    labels = [label.text for label in section(page, "weights").all("text", "label")]
    assert labels[0] == "28 dB: conv2"


def test_many_weights_are_all_in_the_table():
    found = section(read(compress_page(compressed(60), "model.onnx")), "weights")
    assert len(found.one("table").rows()) == 61
    assert len(list(found.all("circle"))) == 24
    assert found.one("figcaption").text.endswith("the 24 that lost most")


def test_left_in_float(page):
    found = section(page, "left")
    assert found.one("h3").text == "something else reads it"
    assert "last" in found.text


def test_nothing_in_integers():
    page = read(compress_page(compressed(0), "model.onnx"))
    assert [s.attributes["id"] for s in page.all("section")] == ["left", "file"]
    assert facts(section(page, "file"))["weights"] == "none"
    assert figures(page)["weights in integers"] == ["0 of 1"]


def test_nothing_left():
    page = read(compress_page(compressed(left=()), "model.onnx"))
    assert [s.attributes["id"] for s in page.all("section")] == ["weights", "file"]


def test_the_file(page):
    held = facts(section(page, "file"))
    assert held["opset"] == "17 → 21"
    assert held["weights"] == "3 of 4 bits"
    assert held["outputs' error"] == "1.2e-02 on 2 sets of inputs, given"
    assert "error allowed" not in held
    other = compressed(budget=0.05, folded=None, opset=(21, 21), error="it does not run")
    held = facts(section(read(compress_page(other, "model.onnx")), "file"))
    assert held["opset"] == "21"
    assert held["error allowed"] == "5.0e-02"
    assert held["outputs' error"] == "not measured: it does not run"
    assert "folds made first" not in held
    assert "outputs off by" not in figures(read(compress_page(other, "model.onnx")))


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_stays_a_name(name):
    page = read(compress_page(compressed(error=name), name))
    assert page.one("h1").text == shown(name)
    assert facts(section(page, "file"))["outputs' error"] == shown(f"not measured: {name}")
