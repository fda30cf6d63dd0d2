"""`onnxfuse compress` from the command line."""

import json
from pathlib import Path

import onnx
import pytest

import models
from tests.compression.building import chain
from tests.lift.building import Builder

DIGITS = Path(models.__file__).parent / "trained" / "repvgg_digits.onnx"


@pytest.fixture
def path(tmp_path):
    onnx.save(chain(opset=13), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_writes_beside_the_model_and_says_what_it_did(call, path):
    code, out, err = call("compress", path)
    assert (code, err) == (0, "")
    assert "Weights in integers" in out
    assert "opset 13 -> 21" in out
    assert "times smaller" in out
    assert "session.disable_quant_qdq=1" in out
    assert out.rstrip().endswith("model.compressed.onnx")
    onnx.checker.check_model(path.parent / "model.compressed.onnx", full_check=True)


def test_options_reach_the_report(call, path, tmp_path):
    out = tmp_path / "out.onnx"
    options = ("--bits", 2, "--block", 64, "--zero-point", "--channel-shift", "--no-fold")
    code, printed, _ = call(
        "compress",
        path,
        "-o",
        out,
        *options,
        "--scales",
        "float32",
        "--keep",
        "first",
        "--json",
        "-",
    )
    report = json.loads(printed)
    assert code == 0
    assert (report["bits"], report["block"], report["folded"]) == (2, 64, None)
    (weight,) = report["compressed"]
    assert (weight["weight"], weight["scales"], weight["bits"]) == ("second", "float32", 2)
    assert report["left"][0]["reason"] == "it is kept"
    names = {tensor.name for tensor in onnx.load(out).graph.initializer}
    assert {"second/zero_point", "second/channel_shift", "second/scale", "first"} <= names


def test_outputs_are_compared_on_samples(call, tmp_path):
    out, data = tmp_path / "out.onnx", DIGITS.parent / "digits_test.npz"
    code, printed, _ = call("compress", DIGITS, "-o", out, "-c", data, "--json", "-")
    error = json.loads(printed)["error"]
    assert (code, error["inputs"], error["samples"]) == (0, "given", 445)
    assert error["relative_l2"] < 0.2


def test_samples_are_not_written_over(call, tmp_path):
    data = tmp_path / "data.npz"
    data.write_bytes((DIGITS.parent / "digits_test.npz").read_bytes())
    code, _, err = call("compress", DIGITS, "-o", data, "-c", data)
    assert code == 2
    assert "data.npz" in err


def test_a_budget_chooses_bits(call, tmp_path):
    out = tmp_path / "out.onnx"
    code, printed, _ = call("compress", DIGITS, "-o", out, "--budget", 0.1, "--json", "-")
    report = json.loads(printed)
    assert code == 0
    assert report["error"]["relative_l2"] <= 0.1
    assert len({weight["bits"] for weight in report["compressed"]}) > 1


def test_many_weights_are_summed_up(call, tmp_path):
    b = Builder(17)
    x = b.input(1, 32, 4, 4)
    for _ in range(30):
        x = b.op("Relu", b.conv(x, 32, 32, (1, 1)))
    onnx.save(b.model(x), tmp_path / "deep.onnx")
    code, out, _ = call("compress", tmp_path / "deep.onnx", "--bits", 8)
    assert code == 0
    assert "and 22 more (--json lists all)" in out
    assert len(out.splitlines()) < 45


def test_nothing_to_compress(call, tmp_path):
    b = Builder()
    onnx.save(b.model(b.op("Relu", b.input(3))), tmp_path / "model.onnx")
    code, out, _ = call("compress", tmp_path / "model.onnx")
    assert code == 0
    assert "nothing is compressed" in out
    assert "disable_quant_qdq" not in out


def test_quiet_prints_nothing(call, path):
    assert call("compress", path, "-q") == (0, "", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bits", "5"), "'5' is not one of"),
        (("--block", "33"), "'33' is not one of"),
        (("--budget", "0.1", "--bits", "4"), "goes without --bits"),
        (("--budget", "-1"), "-1"),
        (("--keep", "nowhere"), "no weight and no layer is named 'nowhere'"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(call, path, options, words):
    code, out, err = call("compress", path, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx"]


def test_the_model_is_never_replaced(call, path):
    before = path.read_bytes()
    code, _, err = call("compress", path, "-o", path)
    assert code == 2
    assert "input file" in err
    assert path.read_bytes() == before


def test_a_model_that_cannot_be_raised_is_one_line(call, tmp_path):
    b = Builder(18)
    x = b.conv(b.input(1, 48, 5, 5), 48, 48)
    x = b.op("GroupNormalization", x, b.random(2), b.random(2), num_groups=2)
    onnx.save(b.model(x), tmp_path / "model.onnx")
    code, _, err = call("compress", tmp_path / "model.onnx")
    assert code == 2
    assert "storing 4 bits needs opset 21, the model has 18" in err
    assert len(err.splitlines()) == 1
