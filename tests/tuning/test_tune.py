"""`tune` and `optimize --tune`: what is faster is taken, and the model computes the same."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnxfuse
from onnxfuse import ModelError, tune
from onnxfuse.benchmark.result import Interval
from onnxfuse.pipeline import STEPS, TRIALS
from onnxfuse.tuning import choosing
from scripts.bench_optimizer import multi_branch
from tests.lift.building import Builder, same
from tests.lift.comparing import run


def network(*shape):
    """A Conv and its norm; a hard-swish in steps; a scale that moves; a Conv."""
    b = Builder()
    x = b.conv(b.input(*(shape or ("n", 3, "h", "w"))), 3, 8, pads=same((3, 3)))
    x = b.op("Tanh", b.batch_norm(x, 8, output="normed"), output="bent")
    gate = b.op("Clip", b.op("Add", x, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
    x = b.op("Div", b.op("Mul", x, gate), b.constant(6.0), output="swished")
    x = b.op("Mul", b.op("Relu", x, output="cut"), b.constant(2.0))
    return b.model(b.conv(x, 8, 4, pads=same((3, 3)), output="y"))


def taking(ratio_of):
    """Ratios as they are said to be: of the first way 1, of the others what is given."""

    def ratios(models, feeds, settings):
        taking.models.append(models)
        return [Interval(1.0, 1.0, 1.0)] + [ratio_of(model) for model in models[1:]]

    taking.models = []
    return ratios


FAST, SLOW = Interval(2.0, 1.9, 2.1), Interval(0.5, 0.4, 0.6)


def agree(model, other, *sizes):
    for size in sizes or ((2, 3, 9, 7), (1, 3, 12, 8)):
        x = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        (expected,), (found,) = run(model, {"x": x}), run(other, {"x": x})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_slow_by_default_is_taken_as_it_was(monkeypatch):
    """By default 12 Convs in the place of one: the one comes back, measured in earnest."""
    b = Builder()
    x = b.input("n", 16, "h", "w")
    y = b.op("Tanh", b.conv(x, 16, 16, pads=same((3, 3)), output="made"), output="y")
    model = b.model(y)
    identity = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)

    def optimize_with(trial, given, *, skip=(), keep=()):
        result = onnxfuse.optimize(network())
        some = onnxfuse.optimize(given, skip=skip, keep=keep)
        if set(skip) >= set(STEPS):
            return some
        graph = some.model.graph
        (conv,) = (node for node in graph.node if node.op_type == "Conv")
        conv.output[0] = "long0"
        graph.initializer.append(onnx.numpy_helper.from_array(identity, "one"))
        for i in range(12):
            output = "made" if i == 11 else f"long{i + 1}"
            graph.node.insert(1 + i, onnx.helper.make_node("Conv", [f"long{i}", "one"], [output]))
        folds = tuple(replace(fold, target="made") for fold in result.report.folds[:1])
        return replace(some, report=replace(some.report, folds=folds))

    monkeypatch.setattr(choosing, "optimize_with", optimize_with)
    result = tune(model, threads=1, shapes={"": (1, 16, 40, 40)})
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Tanh"]
    (tuned,) = result.report.tuned
    assert (tuned.tensors, tuned.way) == (("made",), "as it was")
    assert tuned.ratio > 1.5
    assert result.report.folds == ()
    agree(model, result.model, (2, 16, 9, 7))
    monkeypatch.setattr(choosing, "ratios", lambda *_: pytest.fail("it was measured again"))
    again = tune(model, threads=1, shapes={"": (1, 16, 40, 40)})
    assert again.report.tuned == result.report.tuned
    with pytest.raises(BaseException, match="measured again"):
        tune(model, threads=1, shapes={"": (1, 16, 41, 40)})
    with pytest.raises(BaseException, match="measured again"):
        tune(model, threads=2, shapes={"": (1, 16, 40, 40)})


def test_nothing_is_changed_where_nothing_is_faster(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: SLOW))
    result, usual = tune(network()), onnxfuse.optimize(network())
    assert result.model == usual.model
    assert result.report == usual.report
    assert taking.models


def test_every_region_as_it_was(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    model = network()
    result = tune(model)
    assert result.report.tuned
    assert {way.way for way in result.report.tuned} <= {
        "as it was",
        *(f"without {step}" for step in STEPS),
        *(f"with {trial}" for trial in TRIALS),
    }
    assert result.report.after.nodes == len(result.model.graph.node)
    agree(model, result.model)
    onnx.checker.check_model(result.model, full_check=True)


def test_regions_have_what_is_around_them(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: SLOW))
    tune(network())
    first = [[node.op_type for node in models[0].graph.node] for models in taking.models]
    assert any("Tanh" in ops and len(ops) > 2 for ops in first)
    for models in taking.models:
        names = [[value.name for value in model.graph.output] for model in models]
        assert all(these == names[0] for these in names)


def test_kept_tensors_and_skipped_operators(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    model = network()
    result = tune(model, keep=["cut"], skip=["HardSigmoid"])
    assert "cut" in {name for node in result.model.graph.node for name in node.output}
    assert "HardSigmoid" not in {node.op_type for node in result.model.graph.node}
    agree(model, result.model)


def test_weights_that_are_inputs_too(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    b = Builder()
    x = b.op("Mul", b.conv(b.input("n", 3, "h", "w"), 3, 4), b.constant(np.ones(1), name="given"))
    model = b.model(b.batch_norm(b.conv(x, 4, 4), 4))
    model.graph.input.append(onnx.helper.make_tensor_value_info("given", 1, [1]))
    result = tune(model)
    assert taking.models
    agree(model, result.model, (2, 3, 9, 7))


@pytest.mark.parametrize("taken", ["w/tuned0", "t/tuned0", "Relu/tuned0"])
def test_names_that_look_like_new_ones(monkeypatch, taken):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    b = Builder()
    x = b.op("Conv", b.input("n", 3, "h", "w"), b.random(4, 3, 3, 3, name="w"), output="t")
    x = b.op("Tanh", b.op("Mul", x, b.constant(1.5), output="scaled"), output="bent")
    other = b.op("Conv", x, b.random(4, 4, 3, 3, name=taken), output="seen")
    model = b.model(b.op("Relu", other, output="y"))
    result = tune(model)
    assert ("scaled",) in {tuned.tensors for tuned in result.report.tuned}
    agree(model, result.model)
    agree(model, tune(result.model).model)


def test_tensors_of_later_passes_are_no_tensors_of_the_model():
    """Names of the model stay its own, also of tensors that are gone by now."""
    b = Builder()
    x = b.op("Tanh", b.conv(b.input(1, 3, 8, 8), 3, 4, (1, 1)), output="bent")
    wide = b.op("Conv", x, b.random(4, 4, 3, 3), pads=same((3, 3)), output="wide")
    point = b.op("Conv", x, b.random(4, 4, 1, 1), output="point")
    x = b.op("Relu", b.op("Add", wide, point, output="end/Relu"), output="cut")
    x = b.op("MaxPool", b.op("Mul", x, b.constant(2.0)), kernel_shape=[2, 2])
    model = b.model(b.op("Sigmoid", b.op("Mul", x, b.constant(0.1), output="end"), output="y"))
    values = {}
    for result in (onnxfuse.optimize(model), onnxfuse.optimize(model, skip=STEPS)):
        for name in {n for node in result.model.graph.node for n in node.output}:
            shown = onnx.ModelProto()
            shown.CopyFrom(result.model)
            del shown.graph.output[:]
            shown.graph.output.append(onnx.ValueInfoProto(name=name))
            (value,) = run(shown, {"x": np.ones((1, 3, 8, 8), np.float32)})
            np.testing.assert_allclose(values.setdefault(name, value), value, rtol=1e-5)


def test_weights_are_there_once(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    result = tune(network())
    values = [tensor.raw_data for tensor in result.model.graph.initializer]
    assert len(values) == len(set(values))


def test_the_model_given_is_not_changed(monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    model = network()
    before = model.SerializeToString(deterministic=True)
    tune(model)
    assert model.SerializeToString(deterministic=True) == before


def test_nothing_to_fold():
    b = Builder()
    model = b.model(b.op("Relu", b.input("n", 3)))
    assert tune(model).report.tuned == ()


def test_data_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    onnx.save(
        multi_branch(16),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        size_threshold=0,
        location="data",
    )
    result = tune(tmp_path / "model.onnx")
    result.save(tmp_path / "out.onnx")
    assert result.report.tuned
    agree(multi_branch(16), onnx.load(tmp_path / "out.onnx"), (1, 8, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "abacus"}, "abacus"),
        ({"sizes": {"depth": 3}}, "depth"),
        ({"shapes": {"": (1, 3, 8)}}, "has 4 axes, not 3"),
        ({"shapes": {"": (1, 4, 8, 8)}}, "3 cannot be 4"),
        ({"shapes": {"y": (1, 3, 8, 8)}}, "no input is named 'y'"),
        ({"skip": "Conv"}, "skip takes a list"),
        ({"keep": ["none"]}, "none"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ModelError, match=message):
        tune(network(), **options)


# The command line --------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    """The network, in a file."""
    onnx.save(network(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_tunes_from_the_command_line(file, call, monkeypatch):
    monkeypatch.setattr(choosing, "ratios", taking(lambda _: FAST))
    report = file.parent / "report.json"
    options = ["--tune", "--threads", 1, "--provider", "cpu", "--input-shape", "x:1x3x16x16"]
    code, out, err = call("optimize", file, *options, "--json", report)
    assert (code, err) == (0, "")
    assert "2.00 times as fast there" in out
    assert json.loads(report.read_text())["tuned"]
    agree(network(), onnx.load(file.parent / "model.fused.onnx"))
    shapes = {
        tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for models in taking.models
        for value in models[0].graph.input
    }
    assert (1, 8, 16, 16) in shapes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", 1], "go with --tune"),
        (["--provider", "cpu"], "go with --tune"),
        (["--input-shape", "1x3x8x8"], "go with --tune"),
        (["--tune", "--input-shape", "1,3"], "is not written as"),
        (["--tune", "--provider", "abacus"], "abacus"),
        (["--tune", "--input-shape", "z:1x3"], "no input is named 'z'"),
    ],
)
def test_arguments_that_cannot_be(file, call, options, message):
    code, out, err = call("optimize", file, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".onnx"] == ["model.onnx"]
