"""scripts/bench_zoo.py: contestants that fail, the tables, and one run."""

import json
import math
import sys

import onnx
import pytest

from onnxfuse.benchmark import Interval
from scripts import bench_zoo, contestants
from scripts.contestants import CONTESTANTS, prepare
from scripts.pytorch_runner import PyTorchRunner, RunnerError
from scripts.zoo_table import Outcome, Row, geometric_means, markdown
from tests.benchmark.building import image_net, save

MODEL = image_net(1, 4, 8, 8)


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "training.onnx", MODEL)


def ran(seconds, ratio, nodes=5):
    return Outcome(nodes, Interval(seconds, seconds, seconds), Interval(ratio, ratio, ratio))


ROWS = [
    Row("one", (1, 3, 8, 8), {"a": ran(0.01, 1), "b": ran(0.005, 2), "c": Outcome(failure="x: y")}),
    Row("two", (1, 3, 8, 8), {"a": ran(0.02, 1), "b": ran(0.0025, 8), "c": ran(0.01, 2, None)}),
    Row("three", (1, 3, 8, 8), {"a": ran(0.02, 1), "b": ran(0.001, 18), "c": ran(0.04, 0.5)}),
]


def test_geometric_means_are_over_the_networks_where_all_ran():
    means, over = geometric_means(ROWS)
    assert over == ["two", "three"]
    assert means == pytest.approx({"a": 1, "b": 12, "c": 1})
    means, over = geometric_means(ROWS[:1])  # c ran nowhere
    assert (means, over) == (pytest.approx({"a": 1, "b": 2}), ["one"])


def test_means_where_no_network_has_all():
    rows = [
        ROWS[0],
        Row("four", (1,), {"a": ran(1, 1), "b": Outcome(failure="no"), "c": ran(1, 2)}),
    ]
    assert geometric_means(rows) == ({}, [])
    assert "geometric mean, 0 networks" in markdown(rows, "")


def test_the_tables():
    lines = markdown(ROWS, "some machine").splitlines()
    assert "| network | a | b | c |" in lines
    assert "| one | 10.00 (1.00x) | 5.00 (2.00x) | x |" in lines
    assert "| geometric mean, 2 networks | 1.00x | 12.00x | 1.00x |" in lines
    assert "| two | 5 | 5 |  |" in lines
    assert "c on one: x: y" in lines
    assert lines[-1] == "some machine"


@pytest.mark.parametrize("name", CONTESTANTS)
def test_contestants_give_a_model(source, name):
    if name in ("onnxsim", "onnxslim", "onnxoptimizer"):
        pytest.importorskip(name)
    made = CONTESTANTS[name](onnx.load(source))
    assert any("Conv" in node.op_type for node in made.graph.node)


def test_a_contestant_in_a_process(tmp_path, source):
    target = tmp_path / "out.onnx"
    assert prepare("onnxfuse", source, target, 60) == ""
    assert onnx.load(target).graph.output[0].name == "y"


def test_a_contestant_that_does_not_end(tmp_path, source):
    assert prepare("onnxfuse", source, tmp_path / "out.onnx", 0.01) == "over 0.01 s"


def test_a_contestant_that_fails(tmp_path):
    why = prepare("onnxfuse", tmp_path / "none.onnx", tmp_path / "out.onnx", 60)
    assert why.startswith("failed: FileNotFoundError")


def test_a_contestant_whose_result_nobody_can_load(tmp_path, source, monkeypatch):
    def spoilt(model: onnx.ModelProto) -> onnx.ModelProto:
        model.graph.node[0].attribute.append(onnx.helper.make_attribute("allowzero", 1))
        return model

    monkeypatch.setitem(CONTESTANTS, "onnxslim", spoilt)
    monkeypatch.setattr(sys, "argv", ["", "onnxslim", str(source), str(tmp_path / "out.onnx")])
    with pytest.raises(onnx.checker.ValidationError, match="allowzero"):
        contestants.main()


def test_a_contestant_that_is_not_installed(tmp_path, source, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxslim", None)
    monkeypatch.setattr(sys, "argv", ["", "onnxslim", str(source), str(tmp_path / "out.onnx")])
    with pytest.raises(SystemExit) as stop:
        contestants.main()
    assert stop.value.code == contestants.NOT_INSTALLED
    assert "onnxslim" in capsys.readouterr().err


def test_pytorch_that_does_not_start():
    with pytest.raises(RunnerError, match=r"^failed: KeyError: 'no_such_network'$"):
        PyTorchRunner("no_such_network", "eager", 1, 60)
    with pytest.raises(RunnerError, match=r"^over 0\.01 s$"):
        PyTorchRunner("three_branch", "eager", 1, 0.01)


def test_arguments_that_name_nothing(capsys):
    for arguments in (["--only", "no_such_network"], ["--contestants", "magic"]):
        with pytest.raises(SystemExit) as stop:
            bench_zoo.main(arguments)
        assert stop.value.code == 2
    assert "no contestant is called 'magic'" in capsys.readouterr().err


@pytest.mark.slow
def test_one_network(tmp_path, capsys, monkeypatch):
    def wrong(name, source, target, limit):
        model = onnx.load(source)
        if name == "onnxslim":
            model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        if name == "onnxsim":
            return "over 60 s"
        onnx.save(model, target)
        return ""

    monkeypatch.setattr(bench_zoo, "prepare", wrong)
    chosen = "onnxsim,onnxslim,onnxfuse,PyTorch eager"
    arguments = ["--only", "three_branch", "--quick", "--contestants", chosen]
    bench_zoo.main([*arguments, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "out" / "zoo.md").read_text().strip()
    data = json.loads((tmp_path / "out" / "zoo.json").read_text(), parse_constant=pytest.fail)
    (row,) = data["networks"]
    found = row["outcomes"]
    assert list(found) == ["training form", *chosen.split(",")]
    assert found["onnxsim"]["failure"] == "over 60 s"
    assert found["onnxslim"]["failure"].startswith("differs: relative L2 distance")
    assert found["PyTorch eager"]["nodes"] is None
    for name in ("training form", "onnxfuse", "PyTorch eager"):
        assert 0 < found[name]["latency"]["value"] < math.inf
    assert set(data["geometric_means"]) == {"training form", "onnxfuse", "PyTorch eager"}


@pytest.mark.nightly
def test_all_contestants_on_one_network(capsys):
    bench_zoo.main(["--only", "three_branch", "--quick", "--limit", "300"])
    assert "three_branch | 33 |" in capsys.readouterr().out
