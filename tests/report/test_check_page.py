import math
from dataclasses import replace

import pytest

import onnxfuse
from onnxfuse.parity.result import ULP_BINS
from onnxfuse.report.html import check_page
from tests.report.building import checked, closeness, output, two_branches
from tests.report.reading import facts, figures, read


@pytest.fixture(scope="module")
def folded():
    return onnxfuse.optimize(two_branches())


def section(page, key):
    return next(s for s in page.all("section") if s.attributes["id"] == key)


def test_a_verdict_that_nobody_misses():
    good = read(check_page(checked())).one("p", "verdict")
    assert good.text == "They agree: rounding explains every difference."
    assert "good" in good.attributes["class"]
    bad = read(check_page(checked(agrees=False))).one("p", "verdict")
    assert bad.text == "They differ: further from the truth than rounding explains."
    assert "bad" in bad.attributes["class"]


def test_the_summary():
    held = figures(read(check_page(checked(agrees=False))))
    assert held["outputs compared"] == ["3", "3 sets of inputs"]
    assert held["differ by more than rounding"] == ["1"]
    assert held["largest relative difference"] == ["3.1e-07", "largest absolute: 2.5e-07"]
    assert held["in float64"][0] == "81.5"


def test_every_output_has_a_row():
    page = read(check_page(checked(agrees=False)))
    rows = section(page, "outputs").one("table").rows()[1:]
    assert [row[1] for row in rows] == [o.inputs for o in checked().outputs]
    assert [row[5] == "agree" for row in rows] == [True, False, True]
    assert rows[0][6:] == ["3.1e-07", "2.5e-07", "130.2", "0.999999999", "100%", "100%"]


def test_every_output_is_plotted_with_its_limit():
    result = checked(agrees=False)
    chart = section(read(check_page(result)), "distances").one("svg")
    assert len(list(chart.all("circle"))) == 2 * len(result.outputs)
    assert len(list(chart.all("line", "limit"))) == len(result.outputs)
    first = next(iter(chart.all("g")))
    assert first.one("text", "label").text == "✗ y, 1x3x64x32 normal, cpu"
    second, limit = first.one("circle", "second"), first.one("line", "limit")
    assert place(second.attributes["cx"]) > place(limit.attributes["x1"])
    for row in list(chart.all("g"))[1:]:
        right = row.one("line", "limit").attributes["x1"]
        assert place(row.one("circle", "second").attributes["cx"]) <= place(right)


def place(percentage):
    return float(percentage.removesuffix("%"))


def test_the_axis_of_the_plot():
    chart = section(read(check_page(checked())), "distances").one("svg")
    labels = [tick.text for tick in chart.all("text", "tick")]
    assert labels[0] == "0"
    assert [math.log10(float(label)) for label in labels[1:]] == pytest.approx([-7, -6])


def test_units_in_the_last_place_are_summed():
    rows = section(read(check_page(checked())), "ulps").one("table").rows()[1:]
    assert [row[0] for row in rows] == list(ULP_BINS)
    counts = [3 * count for count in closeness().ulps]
    assert [int(row[1].replace(",", "")) for row in rows] == counts


def test_where_they_part(folded):
    (fold,) = folded.report.folds
    part = section(read(check_page(checked(fold, agrees=False))), "divergence")
    held = facts(part)
    assert held["tensor"] == "c"
    assert held["made by"] == "Conv 'c/Conv'"
    assert held["channel"] == "3"
    assert part.one("h3").text == f"Conv: {fold.formula.replace('->', '→')}"
    assert [c.text for c in next(part.all("ul", "names")).all("code")] == ["first", "sum"]


def test_notes_and_float64():
    page = read(check_page(checked()))
    assert section(page, "notes").one("li").text == "the inputs were cut to 1x3x32x32"
    row = section(page, "float64").one("table").rows()[1]
    assert row == ["y", "1x3x32x32", "agree", "0.42", "3"]


def test_with_the_folds_that_made_the_second(folded):
    page = read(check_page(checked(), folded))
    keys = [s.attributes["id"] for s in page.all("section")]
    assert keys[-4:] == ["operators", "folds", "weights", "refused"]
    assert keys[0] == "distances"


def test_what_cannot_be_compared():
    result = replace(
        checked(),
        outputs=(
            output(
                closeness=None, first_error=math.nan, second_error=math.inf, reason="shapes differ"
            ),
            output(
                dtype="int64", closeness=closeness(ulps=(), snr_db=None, cosine=None, top1=None)
            ),
        ),
        meanings=(),
        notes=(),
    )
    page = read(check_page(result))
    rows = section(page, "outputs").one("table").rows()[1:]
    assert rows[0][5:] == ["shapes differ"] + [""] * 6
    assert rows[1][8:11] == ["", "", ""]
    assert "No output holds floating numbers." in section(page, "ulps").text


def test_nothing_compared():
    read(check_page(replace(checked(), outputs=(), meanings=(), notes=())))


def test_many_cases_fold_away():
    result = replace(checked(), outputs=tuple(output(f"case {n}") for n in range(300)))
    part = section(read(check_page(result)), "distances")
    assert part.one("summary").text == "260 more"
    assert len(list(part.all("circle"))) == 600


def test_hostile_names():
    name = "<script>\x1b[2J\udc80"
    result = replace(
        checked(agrees=False),
        first=name,
        second=name,
        truth=name,
        notes=(name,),
        outputs=(output(name, name=name, provider=name, reason=name),),
    )
    assert r"<script>\x1b[2J\udc80" in read(check_page(result)).text


def test_the_same_result_gives_the_same_page():
    assert check_page(checked()) == check_page(checked())


def approximate():
    """A comparison of approximations: one judged and good, one judged and bad, one only shown."""
    good, bad, shown = checked(agrees=False).outputs
    outputs = (
        replace(good, first_error=0.0, second_error=0.05, bound=0.1, float64_error=0.01),
        replace(bad, first_error=0.0, second_error=0.5, bound=0.1, reason="its SNR is 6.0 dB"),
        replace(shown, first_error=0.0, second_error=2.0, bound=0.1, judged=False),
    )
    return replace(checked(), outputs=outputs, meanings=(), divergence=None, min_snr=20.0)


def test_approximations_are_held_against_what_was_asked_for():
    result = approximate()
    page = read(check_page(result))
    assert page.one("p", "verdict").text == "They differ: its SNR is 6.0 dB."
    assert figures(page)["differ by more than 20 dB allow"] == ["1"]
    rows = section(page, "outputs").one("table").rows()
    assert rows[0][-1] == "SNR in float64, dB"
    assert [row[5] for row in rows[1:]] == ["agree", "its SNR is 6.0 dB", "not judged"]
    assert [row[-1] for row in rows[1:]] == ["40.0", "", ""]
    assert "20 dB, where it is judged" in section(page, "distances").text
    assert not [s for s in page.all("section") if s.attributes["id"] == "ulps"]
    agreed = replace(result, outputs=(result.outputs[0], result.outputs[2]))
    good = read(check_page(agreed)).one("p", "verdict")
    assert good.text == "They agree: every floating output has an SNR of 20 dB or more."
