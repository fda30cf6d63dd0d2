from dataclasses import replace

import pytest

from onnxfuse.report.html import bench_page
from tests.report.building import measured, timing
from tests.report.reading import facts, figures, read


@pytest.fixture(scope="module")
def page():
    return read(bench_page(measured()))


def section(page, key):
    return next(s for s in page.all("section") if s.attributes["id"] == key)


def place(percentage):
    return float(percentage.removesuffix("%"))


def test_the_summary(page):
    assert page.one("h1").text == "Latency"
    held = figures(page)
    assert held["after.onnx on cpu, batch 1"] == [
        "3.69 x",
        "as fast as before.onnx (3.542 to 3.801)",
    ]
    assert held["after.onnx on cpu, batch 8"][0] == "3.48 x"


def test_a_section_for_each_provider_and_batch(page):
    assert section(page, "latency-1").one("h2").text == "cpu, batch 1"
    assert section(page, "latency-2").one("h2").text == "cpu, batch 8"
    assert "x 8x3x224x224" in section(page, "latency-2").text


def test_dots_and_whiskers(page):
    latency, ratio = section(page, "latency-1").all("svg", "chart")
    slow, fast = latency.all("circle")
    assert place(fast.attributes["cx"]) < place(slow.attributes["cx"])
    for row in latency.all("g"):
        dot, whisker = row.one("circle"), row.one("line", "whisker")
        low, high = place(whisker.attributes["x1"]), place(whisker.attributes["x2"])
        assert low < place(dot.attributes["cx"]) < high
    labels = [label.text for label in latency.all("text", "label")]
    assert labels == ["before.onnx: 21.55 ms", "after.onnx: 5.85 ms"]
    one, more = ratio.all("circle")
    assert one.attributes["cx"] == next(ratio.all("line", "limit")).attributes["x1"]
    assert place(more.attributes["cx"]) > place(one.attributes["cx"])


def test_lengths_on_the_axis_are_true(page):
    latency = next(section(page, "latency-1").all("svg", "chart"))
    ticks = [(float(t.text.removesuffix(" ms")), t) for t in latency.all("text", "tick")]
    (low, left), (high, right) = ticks[0], ticks[-1]
    assert low == 0
    start, end = place(left.attributes["x"]), place(right.attributes["x"])
    for circle, milliseconds in zip(latency.all("circle"), (21.55, 5.85), strict=True):
        at = (place(circle.attributes["cx"]) - start) / (end - start)
        assert at == pytest.approx(milliseconds / high, abs=1e-3)


def test_the_table(page):
    rows = section(page, "latency-2").one("table").rows()
    assert rows[2] == [
        "after.onnx",
        "46 ms",
        "44.62 ms to 48.3 ms",
        "3.48",
        "3.341 to 3.584",
        "173.9",
        "",
        "210 ms",
    ]
    assert rows[1][6] == "118 MiB"


def test_time_by_operator(page):
    table = section(page, "operator-time").one("table")
    assert [row[:2] for row in table.rows()[1:]] == [
        ["Conv", "91%"],
        ["Relu", "7.04%"],
        ["Reorder", "1.93%"],
        ["Add", "<0.1%"],
    ]


def test_many_operators_end_in_all_others():
    shares = {f"Op{n}": 0.05 for n in range(20)}
    result = replace(measured(), timings=(timing("m", 1e-3, 1.0, operators=shares),))
    rows = section(read(bench_page(result)), "operator-time").one("table").rows()[1:]
    assert len(rows) == 13
    assert rows[-1][:2] == ["all others", "40%"]


def test_the_machine(page):
    held = facts(section(page, "machine"))
    assert held["processor"] == "A processor, 2 cores"
    assert held["threads"] == "1"
    assert section(page, "machine").one("li").text == "another process was at work"


def test_models_of_one_name_stay_two():
    result = replace(measured(), timings=(timing("m", 2e-3, 1.0), timing("m", 1e-3, 2.0)))
    assert figures(read(bench_page(result))) == {
        "m on cpu, batch 1": ["2 x", "as fast as m (1.92 to 2.06)"]
    }


def test_one_model_alone():
    result = replace(measured(), timings=(timing("m", 2e-3, 1.0),), threads=None, notes=())
    page = read(bench_page(result))
    assert len(list(section(page, "latency-1").all("svg", "chart"))) == 1
    assert facts(page)["threads"] == "the runtime's choice"


def test_nothing_measured():
    read(bench_page(replace(measured(), timings=())))


def test_the_same_result_gives_the_same_page():
    assert bench_page(measured()) == bench_page(measured())
