"""`onnxfuse quantize`: what it prints, writes and refuses."""

import json
from functools import partial

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.quantization.building import images, network


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a model and samples in it."""
    onnx.save(network(), tmp_path / "a.onnx")
    np.savez(tmp_path / "data.npz", x=images(6), labels=np.arange(6) % 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def call(call):
    """Runs `onnxfuse quantize`."""
    return partial(call, "quantize")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_table_of_forms_and_the_model_beside(folder, call):
    code, out, err = call(
        "a.onnx", "--calibration", "data.npz", "--threads", "1", "--json", "r.json"
    )
    assert (code, err) == (0, "")
    for words in (
        "float, folded",
        "int8, folded",
        "top-1",
        "SNR, dB",
        "2 of 2 Conv",
        "1 of 1 Gemm",
    ):
        assert words in out
    assert "a.onnx -> a.int8.onnx" in out
    assert names(folder) == ["a.int8.onnx", "a.onnx", "data.npz", "r.json"]
    report = json.loads((folder / "r.json").read_text(), parse_constant=pytest.fail)
    assert [form["name"] for form in report["forms"]][-1] == "int8, folded, equalized"
    assert report["machine"]["instructions"]


def test_images_without_a_comparison(folder, call):
    (folder / "images").mkdir()
    for index in range(3):
        array = np.random.default_rng(index).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(array).save(folder / "images" / f"{index}.png")
    options = ("--no-compare", "--mean", "0.4,0.5,0.6", "--std", "0.2", "--bgr", "-o", "out.onnx")
    code, out, err = call("a.onnx", "-c", "images", *options)
    assert (code, err) == (0, "")
    assert "calibrated with 3 runs of images (minmax)" in out
    assert "float, folded" not in out
    assert (folder / "out.onnx").is_file()


@pytest.mark.usefixtures("folder")
def test_quiet_and_json_to_standard_output(call):
    code, out, err = call("a.onnx", "-c", "data.npz", "-q", "--no-compare", "--json", "-")
    assert (code, err) == (0, "")
    assert json.loads(out)["calibrated"] == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.onnx"], "--calibration"),
        (["missing.onnx", "-c", "data.npz"], "missing.onnx: cannot be read"),
        (["a.onnx", "-c", "nowhere"], "nowhere: there is no such file or folder"),
        (["a.onnx", "-c", "a.onnx"], "a.onnx: it is none of these"),
        (["a.onnx", "-c", "data.npz", "-e", "nowhere.npz"], "nowhere.npz: cannot be read"),
        (["a.onnx", "-c", "data.npz", "--mean", "a"], "'a' is not written as"),
        (["a.onnx", "-c", "data.npz", "--method", "best"], "--method"),
        (["a.onnx", "-c", "data.npz", "--weight-bits", "4"], "--weight-bits"),
        (["a.onnx", "-c", "data.npz", "--size", "h=3"], "no input has a symbolic dimension 'h'"),
        (["a.onnx", "-c", "data.npz", "--keep", "nowhere"], "no node or tensor is named 'nowhere'"),
        (["a.onnx", "-c", "data.npz", "-o", "a.onnx"], "input file"),
        (["a.onnx", "-c", "data.npz", "-o", "data.npz"], "input file"),
        (["a.onnx", "-c", "data.npz", "--json", "no/r.json"], "there is no folder"),
    ],
)
def test_refuses_in_one_line_and_writes_nothing(folder, call, arguments, said):
    before = names(folder)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert names(folder) == before


@pytest.mark.parametrize("option", ["-o", "--json"])
@pytest.mark.parametrize("command", ["quantize", "compress"])
def test_samples_are_not_replaced(folder, call, command, option):
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "a.npy", images(1))
    (folder / "given.py").write_text("def samples():\n    raise AssertionError\n")
    for data, file in (("arrays", "arrays/a.npy"), ("given.py:samples", "given.py")):
        before = (folder / file).read_bytes()
        code, out, err = call.func(command, "a.onnx", "-c", data, option, file)
        assert (code, out, err) == (
            2,
            "",
            f"onnxfuse: {file} is an input file: it will not be replaced\n",
        )
        assert (folder / file).read_bytes() == before


def test_results_beside_samples_are_replaced(folder, call):
    np.save(folder / "x.npy", images(1))
    (folder / "data.npz").unlink()
    for _ in range(2):
        code, _, err = call("a.onnx", "-c", ".", "--no-compare", "--json", "r.json")
        assert (code, err) == (0, "")
