"""`onnxfuse check`: exit codes, tables, JSON, one line for what cannot be used."""

import json
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxfuse
from tests.lift.building import Builder, same
from tests.parity.breaking import bias_off, folded_convs
from tests.parity.integers import images, network, quantized


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a model, its fold, and a fold gone wrong."""
    b = Builder()
    x = b.input("batch", 4, 12, 12)
    wide = b.conv(x, 4, 4, (3, 3), pads=same((3, 3)))
    y = b.op("Relu", b.op("Add", wide, b.conv(x, 4, 4, (1, 1)), output="folded"))
    model = b.model(b.op("Flatten", b.op("GlobalAveragePool", y), output="logits"))
    onnx.save(model, tmp_path / "model.onnx")
    result = onnxfuse.optimize(model)
    onnx.save(result.model, tmp_path / "fused.onnx")
    (conv,) = folded_convs(result)
    onnx.save(bias_off(result.model, conv, 2), tmp_path / "wrong.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(call):
    """Runs `onnxfuse check`."""
    return partial(call, "check")


def test_agreement_is_exit_code_0(folder, call):
    code, out, err = call("model.onnx", "fused.onnx")
    assert (code, err) == (0, "")
    assert "random 1x4x12x12" in out
    assert "model.onnx and fused.onnx agree" in out
    assert "in float64 every tensor agrees" in out
    for word in ("max abs", "max rel", "rel. L2", "SNR", "cos", "top-1", "in tol.", "4096+"):
        assert word in out


def test_alone_it_is_compared_with_what_optimize_makes_of_it(folder, call):
    code, out, _ = call("model.onnx")
    assert code == 0
    assert "model.onnx and model.onnx, optimized agree" in out
    assert sorted(p.name for p in folder.iterdir()) == ["fused.onnx", "model.onnx", "wrong.onnx"]


def test_a_difference_is_exit_code_1_and_bisect_names_it(folder, call):
    code, out, err = call("model.onnx", "wrong.onnx", "--bisect")
    assert (code, err) == (1, "")
    said = " ".join(out.split())
    assert "model.onnx and wrong.onnx differ" in said
    assert "they part at 'folded', channel 2" in said
    assert "in place of Conv_" in said


def test_json_holds_everything(folder, call):
    code, out, _ = call("model.onnx", "wrong.onnx", "--bisect", "--json", "-")
    report = json.loads(out)
    assert code == 1
    assert report["agrees"] is False
    assert report["truth"] == "float64"
    assert report["divergence"]["tensor"] == "folded"
    assert [name for name, _ in report["divergence"]["replaced"]]
    assert len(report["outputs"][0]["closeness"]["ulps"]) == 9
    code, _, _ = call("model.onnx", "fused.onnx", "--json", "check.json", "--quiet")
    assert code == 0
    assert json.loads((folder / "check.json").read_text())["agrees"] is True


def test_inputs_from_files(folder, call):
    image = np.random.default_rng(0).standard_normal((5, 4, 12, 12)).astype(np.float32)
    np.savez(folder / "inputs.npz", x=image)
    (folder / "data" / "test_data_set_0").mkdir(parents=True)
    tensor = numpy_helper.from_array(image[:2])
    (folder / "data" / "test_data_set_0" / "input_0.pb").write_bytes(tensor.SerializeToString())
    for inputs, batch in (("inputs.npz", 5), ("data", 2)):
        code, out, _ = call("model.onnx", "--inputs", inputs, "--json", "-")
        shapes = {tuple(output["shape"]) for output in json.loads(out)["outputs"]}
        assert (code, shapes) == (0, {(batch, 4)})


def test_sizes_can_be_given(folder, call):
    _, out, _ = call("model.onnx", "--size", "batch=7", "--json", "-")
    assert {output["shape"][0] for output in json.loads(out)["outputs"]} == {7}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "missing.onnx: cannot be read"),
        (["model.onnx", "missing.onnx"], "missing.onnx: cannot be read"),
        (["model.onnx", "--providers", "cuda"], "onnxruntime-gpu brings it"),
        (["model.onnx", "--providers", "cpu,nonsense"], "knows no provider 'nonsense'"),
        (["model.onnx", "--providers", ","], "no execution provider is named"),
        (["model.onnx", "--size", "height=3"], "no input has a symbolic dimension 'height'"),
        (["model.onnx", "--size", "batch"], "is not written as NAME=EXTENT"),
        (["model.onnx", "--inputs", "missing.npz"], "missing.npz"),
        (["model.onnx", "--inputs", "."], "no input_0.pb"),
        (["model.onnx", "--inputs", "model.onnx"], "not an .npz"),
        (["model.onnx", "--json", "model.onnx"], "is an input file"),
        (["model.onnx", "fused.onnx", "--json", "fused.onnx"], "is an input file"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(folder, call, arguments, message):
    if any("cuda" in word for word in arguments):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this build of ONNX Runtime has the CUDA provider")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_many_rows_are_cut(folder, call):
    for number in range(45):
        path = folder / "data" / f"set_{number}"
        path.mkdir(parents=True)
        tensor = numpy_helper.from_array(np.full((1, 4, 12, 12), number, np.float32))
        (path / "input_0.pb").write_bytes(tensor.SerializeToString())
    code, out, _ = call("model.onnx", "fused.onnx", "--inputs", "data")
    assert code == 0
    assert "and 5 more (--json lists all)" in out


def test_report_is_a_page_that_also_shows_the_folds_if_they_were_made_here(folder, call):
    code, _, _ = call("model.onnx", "--report", "alone.html", "--quiet")
    alone = (folder / "alone.html").read_text()
    assert code == 0
    assert "They agree" in alone
    assert "y = W * x + b" in alone
    code, _, _ = call("model.onnx", "wrong.onnx", "--bisect", "--report", "both.html", "--quiet")
    both = (folder / "both.html").read_text()
    assert code == 1
    assert "They differ" in both
    assert "folded" in both
    assert "Left as they are" not in both
    code, _, err = call("model.onnx", "--report", "model.onnx")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "is an input file" in err


@pytest.fixture
def int8(tmp_path, monkeypatch):
    """The working directory, with a network, the same in int8, and images for both."""
    onnx.save(network(), tmp_path / "float.onnx")
    onnx.save(quantized(), tmp_path / "int8.onnx")
    np.savez(tmp_path / "images.npz", x=images())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_approximations_agree_to_a_signal_to_noise_ratio(int8, call):
    models = ("float.onnx", "int8.onnx", "--inputs", "images.npz")
    code, out, err = call(*models, "--min-snr", "15", "--report", "near.html")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "float.onnx and int8.onnx agree: SNR " in said
    assert "dB or more, and 15 dB were asked for" in said
    for word in ("as it runs", "as defined", "at least", "top-1"):
        assert word in out
    assert "last place" not in out
    assert "an SNR of 15 dB or more" in (int8 / "near.html").read_text()
    code, out, _ = call(*models, "--min-snr", "60", "--json", "far.json")
    assert code == 1
    assert "less than 60 dB (inputs: images.npz)" in " ".join(out.split())
    assert "float.onnx and int8.onnx differ: SNR " in " ".join(out.split())
    report = json.loads((int8 / "far.json").read_text())
    assert (report["agrees"], report["min_snr"]) == (False, 60)
    assert report["outputs"][0]["float64_error"] > 0


def test_what_is_not_judged_is_shown(int8, call):
    code, out, _ = call("float.onnx", "int8.onnx", "--min-snr", "3")
    assert code == 0
    assert out.count("not judged") == 4
    assert "note: int8.onnx has scales for the inputs" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-snr", "nan"], "finite number of decibels"),
        (["--min-snr", "much"], "'much' is not a valid float"),
        (["--min-snr", "20", "--bisect"], "leave one of them out"),
    ],
)
def test_ratios_that_cannot_be_used_are_one_line_and_exit_code_2(int8, call, arguments, message):
    code, out, err = call("float.onnx", "int8.onnx", *arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err
