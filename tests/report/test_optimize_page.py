"""What stands on the page of `optimize`, read as a browser reads it."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxfuse
from onnxfuse.report.html import optimize_page
from onnxfuse.report.html.element import shown
from onnxfuse.report.html.folds import OPEN
from scripts.bench_optimizer import multi_branch
from tests.report.building import two_branches
from tests.report.reading import facts, figures, read

EXAMPLE = Path(__file__).resolve().parents[2] / "models" / "three_branch.onnx"
HOSTILE = [
    "</style><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "]]>--><!--</title></svg>&amp;&#60;",
    "javascript:alert(1)",
    "\x00\x1b[2J\r\n\t\x7f",
    "\u202egnp.exe\u2066\u2028",
    "大きな名前 ñ 🙂",
    "n" * 3000,
]


@pytest.fixture(scope="module")
def result():
    return onnxfuse.optimize(EXAMPLE)


@pytest.fixture(scope="module")
def page(result):
    return read(optimize_page(result, "three_branch.onnx"))


def test_the_summary(result, page):
    report = result.report
    assert page.one("h1").text == "three_branch.onnx"
    held = figures(page)
    assert held["nodes"] == ["45 → 15", "66.7% less"]
    assert held["folds"][0] == str(len(report.folds))
    worst = max(fold.certificate.error for fold in report.folds)
    assert float(held["worst certificate"][0]) == pytest.approx(worst, rel=0.06)


def test_operators_before_and_after(result, page):
    before, after = result.report.before, result.report.after
    counted, whole = (table.rows()[1:] for table in list(page.all("table"))[:2])
    assert {row[0]: (int(row[1]), int(row[2])) for row in counted} == {
        name: (before.operators.get(name, 0), after.operators.get(name, 0))
        for name in {*before.operators, *after.operators}
    }
    numbers = {row[0]: tuple(int(cell.replace(",", "")) for cell in row[1:]) for row in whole}
    assert numbers == {
        "nodes": (before.nodes, after.nodes),
        "multiply-adds": (before.macs, after.macs),
        "parameter bytes": (before.parameter_bytes, after.parameter_bytes),
    }


def test_every_fold_with_its_formula_its_names_and_its_certificate(result, page):
    cards = list(page.all("details", "fold"))
    assert len(cards) == len(result.report.folds)
    for number, (card, fold) in enumerate(zip(cards, result.report.folds, strict=True), 1):
        title = f"{number}{' + '.join(fold.nodes)}: {fold.formula.replace('->', '→')}"
        assert card.one("h3").text == title
        named = card.one("ul", "names")
        assert [code.text for code in named.all("code")] == [name for name, _ in fold.replaced]
        assert [span.text for span in named.all("span")] == [op for _, op in fold.replaced]
        held = facts(card)
        error = float(held["largest relative difference"])
        assert error == pytest.approx(fold.certificate.error, rel=0.06, abs=0)
        probes = ", ".join("x".join(map(str, shape)) for shape in fold.certificate.shapes)
        assert held["probes"] == probes


def test_every_fold_is_drawn_before_and_after(result, page):
    for card, fold in zip(page.all("details", "fold"), result.report.folds, strict=True):
        old, new = card.all("svg", "graph")
        assert len(list(old.all("g", "node"))) == len(fold.replaced)
        operators = [box.one("text", "name").text for box in new.all("g", "made")]
        assert operators == list(fold.nodes)
        for drawing in (old, new):
            assert len(list(drawing.all("g", "tensor"))) == 2
            assert drawing.attributes["role"] == "img"
            assert fold.source in drawing.one("desc").text


def test_the_numbers_of_the_weights(result, page):
    tensors = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    for card, fold in zip(page.all("details", "fold"), result.report.folds, strict=True):
        w = tensors[f"{fold.target}.weight"].astype(np.float64)
        held = facts(card)
        low, high = map(float, held["smallest, largest"].split(", "))
        assert (low, high) == pytest.approx((w.min(), w.max()), rel=1e-3)
        assert held["zeros"] == str(np.sum(w == 0))
        assert held["beyond float16"] == "0"
        half = np.sum((np.abs(w) < 2.0**-14) & (np.abs(w) > 2.0**-25))
        assert int(held["denormal in float16"].split()[0]) == half
        scale = np.abs(w).max() / 127
        assert float(held["int8 step, whole tensor"]) == pytest.approx(scale, rel=0.05)
        ranges = np.abs(w).reshape(len(w), -1).max(1)
        ratio = float(held["largest channel range / smallest"])
        assert ratio == pytest.approx(ranges.max() / ranges.min(), rel=1e-3)
    section = next(s for s in page.all("section") if s.attributes["id"] == "weights")
    rows = section.one("table").rows()[1:]
    assert len(rows) == len(result.report.folds)


def test_weights_beyond_float16_stand_out():
    weight = np.zeros((4, 4, 3, 3))
    weight[1, 2, 0, 0] = 1e6
    page = read(optimize_page(onnxfuse.optimize(two_branches(weight=weight)), "m"))
    assert facts(page)["beyond float16"].startswith("1 (")
    assert page.one("td", "warn").text == "1"
    assert "1 weight with numbers beyond" in page.text


def test_every_refusal_with_its_reason():
    model = onnxfuse.optimize(two_branches(), skip=["Add"])
    refusals = model.report.refusals
    section = next(
        s for s in read(optimize_page(model, "m")).all("section") if s.attributes["id"] == "refused"
    )
    assert sorted(code.text for code in section.all("code")) == sorted(r.node for r in refusals)
    said = section.text
    for refusal in refusals:
        assert refusal.reason.split(" (", 1)[0] in said
        assert refusal.operator in said


def test_nothing_to_fold():
    page = read(optimize_page(onnxfuse.optimize(two_branches(), skip=["Conv"]), "m"))
    assert not list(page.all("details", "fold"))
    assert "Nothing to fold." in page.text


def test_the_first_folds_are_open(page):
    opened = ["open" in card.attributes for card in page.all("details", "fold")]
    assert opened == [number < OPEN for number in range(len(opened))]


def test_headings_are_in_order(page):
    levels = [int(n.name[1]) for n in page.all() if re.fullmatch(r"h[1-6]", n.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_it_can_be_read_aloud(page):
    assert page.one("html").attributes["lang"] == "en"
    for drawing in page.all("svg"):
        outer = drawing.above.name != "svg"
        if outer and "aria-hidden" not in drawing.attributes:
            assert drawing.attributes["role"] == "img"
            names = [child.name for child in drawing.children[:2]]
            assert names == ["title", "desc"]
    for head in page.all("th"):
        assert head.attributes["scope"] in ("row", "col")
    assert all(table.children[0].name == "caption" for table in page.all("table"))


def test_it_forbids_itself_everything(page):
    policies = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policies[0]


def test_it_names_no_address(result):
    text = optimize_page(result, "m")
    assert not re.search(r"https?:|//\w|url\(|@import", text)


def test_the_same_model_gives_the_same_page(result):
    again = optimize_page(onnxfuse.optimize(EXAMPLE), "three_branch.onnx")
    assert again == optimize_page(result, "three_branch.onnx")


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_stays_a_name(name):
    result = onnxfuse.optimize(two_branches(name))
    page = read(optimize_page(result, name))
    assert page.one("h1").text == shown(name)
    codes = [code.text for code in page.all("code")]
    assert shown(f"first{name}") in codes
    assert len(list(page.all("style"))) == 1
    plain = read(optimize_page(onnxfuse.optimize(two_branches()), "m"))
    assert [n.name for n in page.all()] == [n.name for n in plain.all()]


def test_a_file_name_that_is_not_utf_8(result):
    optimize_page(result, b"\xff\xfe.onnx".decode(errors="surrogateescape")).encode()


@pytest.mark.slow
def test_two_thousand_nodes():
    result = onnxfuse.optimize(multi_branch(2_000))
    text = optimize_page(result, "large.onnx")
    assert len(text) < 3_000_000
    page = read(text)
    assert len(list(page.all("details", "fold"))) == len(result.report.folds) == 250
    kinds = next(t for t in page.all("table") if t.one("caption").text == "Folds by kind")
    assert [row[2] for row in kinds.rows()[1:]] == ["250"]


def test_save_report(result, tmp_path):
    result.save_report(tmp_path / "r.html", "three_branch.onnx")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text == optimize_page(result, "three_branch.onnx")
    with pytest.raises(onnxfuse.ModelError, match="there is no folder"):
        result.save_report(tmp_path / "no" / "r.html")


def test_the_input_is_not_replaced_by_the_report(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(two_branches(), path)
    before = path.read_bytes()
    with pytest.raises(onnxfuse.ModelError, match="input file"):
        onnxfuse.optimize(path).save_report(path)
    assert path.read_bytes() == before
