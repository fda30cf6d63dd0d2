"""The last gate: which model is faster, and what is to blame where the optimized one is not."""

import json
import sys
from dataclasses import replace
from functools import partial

import onnx
import pytest
from onnx import helper

import onnxfuse
from onnxfuse.benchmark import gate, gate_probe
from onnxfuse.benchmark.gate import Gate, measured
from onnxfuse.benchmark.result import Interval
from onnxfuse.pipeline import STEPS
from onnxfuse.report.html import optimize_page
from scripts.bench_optimizer import multi_branch
from tests.lift.building import Builder


@pytest.fixture
def file(tmp_path):
    """A network of eight blocks of three branches."""
    path = tmp_path / "model.onnx"
    onnx.save(multi_branch(64), path)
    return path


def unwanted(step):
    raise AssertionError(f"it was optimized again without {step}")


def towers(count):
    """As many Convs in a row, on an image of 48 by 48."""
    b = Builder()
    y = b.input("n", 16, 48, 48)
    for _ in range(count):
        y = b.op("Relu", b.conv(y, 16, 16, pads=(1, 1, 1, 1)))
    return b.model(y)


def result_of(model, *steps):
    """What an optimization gives that made this model, by these steps."""
    b = Builder()
    some = onnxfuse.optimize(b.model(b.batch_norm(b.conv(b.input(1, 3, 8, 8), 3, 4), 4)))
    folds = tuple(replace(some.report.folds[0], step=step) for step in steps)
    result = onnxfuse.optimize(model)
    return replace(result, report=replace(result.report, folds=folds))


def test_measures_both_on_the_same_inputs(file):
    found = measured(file, onnxfuse.optimize(file), unwanted)
    assert isinstance(found, Gate)
    assert (found.provider, found.shapes) == ("cpu", {"x": (1, 8, 16, 16)})
    assert min(found.before, found.after) > 0
    assert 0 < found.ratio.low <= found.ratio.value <= found.ratio.high


def test_nothing_is_measured_where_nothing_was_done(tmp_path):
    onnx.save(towers(2), tmp_path / "model.onnx")
    result = onnxfuse.optimize(tmp_path / "model.onnx")
    assert measured(tmp_path / "model.onnx", result, unwanted) is None


def test_a_slower_model_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "_PATIENCE", 0.0)
    onnx.save(towers(1), tmp_path / "model.onnx")
    found = measured(tmp_path / "model.onnx", result_of(towers(8), "folds"), unwanted)
    assert found.is_slower
    assert (found.blamed, found.ratio.value < 0.5) == ("", True)


@pytest.mark.parametrize(
    ("ratios", "blamed"),
    [
        ({"folds": 0.5, "moves": 1.1, "phases": 1.2}, "phases"),
        ({"folds": 1.0, "moves": 0.97, "phases": None}, "folds"),
        ({"folds": 0.97, "moves": 0.8}, ""),
    ],
)
def test_names_the_step_without_which_it_is_fastest(tmp_path, monkeypatch, ratios, blamed):
    results = {step: result_of(towers(1), step) for step in ratios}
    whole = result_of(towers(1), *reversed(ratios))
    asked = []

    def compared(_, result):
        ratio = next((ratios[step] for step in ratios if results[step] is result), 0.5)
        if ratio is None:
            return "it does not run"
        return Gate("cpu", {}, 1.0, 1.0, Interval(ratio, ratio, ratio))

    def without(step):
        asked.append(step)
        return results[step]

    monkeypatch.setattr(gate, "_compared", compared)
    found = measured(tmp_path / "model.onnx", whole, without)
    assert asked == list(ratios)
    assert (found.ratio.value, found.blamed) == (0.5, blamed)


@pytest.mark.parametrize(("high", "slower"), [(0.97, True), (0.98, False), (1.2, False)])
def test_what_counts_as_slower(high, slower):
    assert Gate("cpu", {}, 1.0, 1.0, Interval(0.95, 0.9, high)).is_slower is slower


def test_a_model_that_takes_too_long(file, monkeypatch):
    monkeypatch.setattr(gate, "LIMIT", 0.01)
    assert measured(file, onnxfuse.optimize(file), unwanted) == "it takes more than 0.01 s"


def test_a_large_model(file, monkeypatch):
    monkeypatch.setattr(gate, "LARGEST", 1 << 10)
    assert "of weights" in measured(file, onnxfuse.optimize(file), unwanted)


def test_a_model_that_the_runtime_does_not_load(tmp_path):
    model = multi_branch(8)
    model.graph.node.append(helper.make_node("Odd", ["x"], ["odd"], domain="nobody"))
    model.graph.output.append(helper.make_tensor_value_info("odd", 1, None))
    model.opset_import.append(helper.make_opsetid("nobody", 1))
    onnx.save(model, tmp_path / "model.onnx")
    found = measured(tmp_path / "model.onnx", onnxfuse.optimize(tmp_path / "model.onnx"), unwanted)
    assert "Odd" in found
    assert "\n" not in found


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_a_model_that_needs_all_memory(tmp_path):
    """64 TiB: more than there is anywhere, and zeros that nobody touches would count as none."""
    b = Builder()
    x = b.input(1, 3, 8, 8)
    y = b.batch_norm(b.conv(x, 3, 4), 4)
    size = b.op("Mul", b.op("Shape", x), b.constant([1 << 20, 1 << 10, 1 << 10, 1]))
    model = b.model(y, b.op("Expand", b.constant(1.0), size))
    onnx.save(model, tmp_path / "model.onnx")
    found = measured(tmp_path / "model.onnx", onnxfuse.optimize(tmp_path / "model.onnx"), unwanted)
    assert isinstance(found, str)
    assert "\n" not in found


def test_a_slower_model_is_measured_once_more(file, monkeypatch):
    ratios = [Interval(0.5, 0.4, 0.6), Interval(0.99, 0.98, 1.0)]
    given = [Gate("cpu", {}, 1.0, 1.0, ratio) for ratio in ratios]
    monkeypatch.setattr(gate_probe, "_timed", lambda opened, case: given.pop(0))
    assert gate_probe.compared(file, file).ratio == ratios[1]


# The command line --------------------------------------------------------------------------------


@pytest.fixture
def on(monkeypatch):
    """As users have it."""
    monkeypatch.delenv("ONNXFUSE_GATE")


@pytest.mark.usefixtures("on")
def test_the_command_line_says_how_fast_it_is(file, call):
    code, out, err = call("optimize", file, "--json", f"{file}.json", "--report", f"{file}.html")
    assert (code, err) == (0, "")
    assert "times as fast" in out
    assert "1x8x16x16" in out
    found = json.loads((file.parent / "model.onnx.json").read_text())["gate"]
    assert found["ratio"]["value"] > 1
    assert found["shapes"] == {"x": [1, 8, 16, 16]}
    assert "speed here" in (file.parent / "model.onnx.html").read_text()


@pytest.mark.parametrize(
    ("options", "environment"), [(["--no-gate"], None), (["-q"], None), ([], "0")]
)
def test_who_does_not_want_it_waits_for_nothing(file, call, monkeypatch, options, environment):
    monkeypatch.delenv("ONNXFUSE_GATE")
    if environment is not None:
        monkeypatch.setenv("ONNXFUSE_GATE", environment)
    monkeypatch.setattr(gate, "call", lambda *_: pytest.fail("it was measured"))
    code, out, _ = call("optimize", file, *options)
    assert code == 0
    assert "times as fast" not in out


@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("blamed", ["moves", ""])
def test_a_slower_model_is_written_and_told(file, call, monkeypatch, blamed):
    found = Gate("cpu", {"x": (1, 2)}, 0.001, 0.002, Interval(0.5, 0.49, 0.51), blamed)
    monkeypatch.setattr(gate, "measured", lambda *_: found)
    code, out, _ = call("optimize", file)
    assert code == 0
    assert "slower here" in out
    assert ("--skip moves" in out) is (blamed != "")
    assert (file.parent / "model.fused.onnx").exists()


@pytest.mark.usefixtures("on")
def test_what_was_not_measured_is_told(file, call, monkeypatch):
    monkeypatch.setattr(gate, "LIMIT", 0.01)
    code, out, _ = call("optimize", file)
    assert code == 0
    assert "speed not measured: it takes more than 0.01 s" in out


@pytest.mark.usefixtures("on")
def test_no_place_for_a_copy(file, call, monkeypatch):
    def full(**_):
        raise OSError("no space left")

    monkeypatch.setattr(gate.tempfile, "TemporaryDirectory", full)
    code, out, _ = call("optimize", file)
    assert code == 0
    assert "speed not measured: there is no place for a copy" in out
    assert (file.parent / "model.fused.onnx").exists()


@pytest.mark.usefixtures("on")
def test_nothing_is_left_behind(file, call, monkeypatch, tmp_path):
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made))
    assert call("optimize", file)[0] == 0
    assert list(made.iterdir()) == []


# Steps -------------------------------------------------------------------------------------------


def network_of_every_step():
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, 8, pads=(1, 1, 1, 1))
    x = b.batch_norm(x, 8)
    gate_ = b.op("Clip", b.op("Add", x, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
    x = b.op("Div", b.op("Mul", x, gate_), b.constant(6.0))
    x = b.op("Mul", b.op("Relu", x), b.constant(2.0))
    return b.model(b.conv(x, 8, 4, pads=(1, 1, 1, 1)))


def test_every_fold_names_its_step():
    folds = onnxfuse.optimize(network_of_every_step()).report.folds
    assert {"folds", "activations", "moves"} >= {fold.step for fold in folds}
    assert {fold.step for fold in folds} >= {"folds", "activations"}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_skipped_is_not_made(step):
    folds = onnxfuse.optimize(network_of_every_step(), skip=[step]).report.folds
    assert step not in {fold.step for fold in folds}
    assert folds or step == "folds"


def test_the_page_without_a_measurement():
    result = onnxfuse.optimize(network_of_every_step())
    page = partial(optimize_page, name="model")
    assert "speed here" not in page(result)
    report = replace(result.report, gate="it takes more than 15 s")
    assert "speed here" not in page(replace(result, report=report))
