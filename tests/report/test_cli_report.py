"""`--report` on the command line."""

import numpy as np
import pytest

import onnxfuse
from onnxfuse import CertificateError, fold
from tests.report.building import two_branches
from tests.report.reading import read

MODEL = two_branches().SerializeToString()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_optimize_writes_it_beside_the_model(folder, call):
    code, out, err = call("optimize", "model.onnx", "--report", "report.html")
    assert (code, err) == (0, "")
    assert "1 fold" in out
    assert files(folder) == ["model.fused.onnx", "model.onnx", "report.html"]
    assert read((folder / "report.html").read_text()).one("h1").text == "model.onnx"


def test_inspect_writes_nothing_else(folder, call):
    assert call("inspect", "model.onnx", "-q", "--report", "sub/r.html") == (0, "", "")
    assert files(folder) == ["model.onnx"]
    assert files(folder / "sub") == ["r.html"]


def test_with_json_on_standard_output(folder, call):
    code, out, err = call("inspect", "model.onnx", "-q", "--json", "-", "--report", "r.html")
    assert (code, err) == (0, "")
    assert out.startswith("{")
    assert files(folder) == ["model.onnx", "r.html"]


def test_an_older_report_is_replaced(folder, call):
    (folder / "r.html").write_text("old")
    assert call("inspect", "model.onnx", "-q", "--report", "r.html") == (0, "", "")
    assert "old" not in (folder / "r.html").read_text()[:100]


REFUSED = {
    "the input": (["--report", "./model.onnx"], "input file"),
    "the output": (["-o", "out", "--report", "sub/../out"], "both be written"),
    "the json": (["--json", "r", "--report", "r"], "both be written"),
    "a folder": (["--report", "sub"], "is a folder"),
    "no folder": (["--report", "no/r.html"], "there is no folder"),
    "no name": (["--report", "n" * 300], "cannot be written"),
    "no name, with json": (["--json", "r.json", "--report", "n" * 300], "cannot be written"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_where_it_cannot_be_written(folder, call, monkeypatch, arguments, said):
    monkeypatch.setattr("onnxfuse.pipeline.optimize", None)  # it is seen before the work begins
    code, out, err = call("optimize", "model.onnx", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("onnxfuse: ")
    assert err.count("\n") == 1
    assert said in err
    assert files(folder) == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == MODEL


def test_nothing_is_written_when_a_fold_fails(folder, call, monkeypatch):
    def fail(*_, **__):
        raise CertificateError("c: differs by 0.5")

    monkeypatch.setattr(fold, "certify", fail)
    code, _, err = call("optimize", "model.onnx", "--report", "r.html", "--json", "r.json")
    assert (code, err) == (3, "onnxfuse: c: differs by 0.5\n")
    assert files(folder) == ["model.onnx"]


def test_nothing_is_written_when_the_page_fails(folder, call, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxfuse.report.html.optimize_page", fail)
    code, _, err = call("optimize", "model.onnx", "--report", "r.html", "--json", "r.json")
    assert (code, err.strip()) == (2, "onnxfuse: interrupted")
    assert files(folder) == ["model.onnx"]


def test_quantize_and_compress_write_it_too(folder, call):
    np.savez("samples.npz", x=np.zeros((2, 4, 8, 8), np.float32))
    wanted = {
        "quantize": ("quantize", "model.onnx", "-q", "--no-compare", "-c", "samples.npz"),
        "compress": ("compress", "model.onnx", "-q"),
    }
    for name, arguments in wanted.items():
        assert call(*arguments, "--report", f"{name}.html") == (0, "", "")
        page = read((folder / f"{name}.html").read_text(encoding="utf-8"))
        assert page.one("h1").text == "model.onnx"


@pytest.mark.parametrize("command", ["quantize", "compress"])
def test_samples_are_not_replaced_by_it(folder, call, command):
    np.savez("samples.npz", x=np.zeros((2, 4, 8, 8), np.float32))
    held = (folder / "samples.npz").read_bytes()
    arguments = (command, "model.onnx", "-c", "samples.npz", "--report", "samples.npz")
    code, _, err = call(*arguments)
    assert code == 2
    assert "input file" in err
    assert (folder / "samples.npz").read_bytes() == held


def test_from_python(folder):
    x = {"x": np.zeros((2, 4, 8, 8), np.float32)}
    results = (onnxfuse.quantize("model.onnx", x, compare=False), onnxfuse.compress("model.onnx"))
    for result in results:
        result.save_report("page.html", "some model")
        page = read((folder / "page.html").read_text(encoding="utf-8"))
        assert page.one("h1").text == "some model"
        with pytest.raises(onnxfuse.ModelError, match="input file"):
            result.save_report("model.onnx")
