"""`onnxfuse export`: what it writes and prints, and one line for what it cannot use."""

import json
import sys
from functools import partial

import onnx
import pytest
import torch

from tests.exporter.modules import FACTORIES, Block

INPUT = ["--input", "1x4x8x6"]
MODEL = ["--exporter", "script", "-o", "m.onnx"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a file of factories in it."""
    (tmp_path / "net.py").write_text(FACTORIES)
    (tmp_path / "sibling.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("sibling", "net"):
        sys.modules.pop(name, None)


@pytest.fixture
def call(call):
    """Runs `onnxfuse export`."""
    return partial(call, "export")


def operators(path):
    return sorted(node.op_type for node in onnx.load(path).graph.node)


def test_exports_and_prints_the_error(folder, call):
    code, out, err = call("net.py:block", *INPUT, *MODEL)
    assert (code, err) == (0, "")
    made = operators("m.onnx")
    counts = {op: made.count(op) for op in ("Conv", "BatchNormalization", "Add", "Dropout")}
    assert counts == {"Conv": 2, "BatchNormalization": 1, "Add": 2, "Dropout": 0}
    assert "ONNX Runtime against PyTorch" in out
    assert "1x4x8x6 negated" in out
    last = out.splitlines()[-1]
    assert last.startswith("net.py:block -> m.onnx: the tracing exporter (script), opset 20, ")


def test_optimizes_at_once(folder, call):
    code, out, _ = call("net.py:block", *INPUT, *MODEL, "--optimize", "--dynamic", "batch,height")
    assert code == 0
    assert operators("m.onnx") == ["Conv"]
    assert "1 fold, each certified in float64" in out
    assert "1x4x16x6" in out


def test_arguments_checkpoint_and_names(folder, call):
    module = Block(6)
    torch.save(module.state_dict(), "w.pt")
    options = ["--arg", "channels=6", "--checkpoint", "w.pt", "--opset", "17"]
    code, _, _ = call(
        "net:Block", *options, "--input", "pixels=1x6x5x5", "--dynamic", "pixels=0:n", *MODEL
    )
    assert code == 0
    model = onnx.load("m.onnx")
    (pixels,) = model.graph.input
    assert pixels.name == "pixels"
    assert pixels.type.tensor_type.shape.dim[0].dim_param == "n"
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    wide = next(value for value in weights.values() if value.shape == (6, 6, 3, 3))
    assert (wide == module.wide.weight.detach().numpy()).all()
    assert model.opset_import[0].version == 17


def test_json(folder, call):
    code, out, err = call("net.py:block", *INPUT, *MODEL, "--optimize", "--json", "-")
    assert code == 0
    report = json.loads(out)
    assert report["exporter"] == "script"
    assert len(report["report"]["folds"]) == 1
    assert report["parity"][0]["error"] < 1e-6
    assert "m.onnx" in err


def test_quiet(folder, call):
    assert call("net.py:block", *INPUT, *MODEL, "--quiet") == (0, "", "")


def test_the_same_seed_writes_the_same_file(folder, call):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["--exporter", "script", "--seed", seed, "-q", "-o", name]
        assert call("net.py:block", *INPUT, *options)[0] == 0
    contents = [(folder / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_notes_that_the_other_exporter_was_taken(folder, call):
    code, out, err = call("tests.exporter.modules:Switch", *INPUT, "-o", "m.onnx")
    assert (code, err) == (0, "")
    assert "note: torch's default exporter (dynamo) failed: " in out


def test_a_program(folder, call):
    program = torch.export.export(Block().eval(), (torch.randn(2, 4, 6, 6),))
    torch.export.save(program, "m.pt2")
    code, out, err = call("m.pt2", "-o", "m.onnx", "--optimize")
    assert (code, err) == (0, "")
    assert operators("m.onnx") == ["Conv"]
    assert "m.pt2 -> m.onnx" in out


def test_what_a_module_prints_is_no_output_of_ours(folder, call):
    (folder / "loud.py").write_text(LOUD)
    code, out, err = call("loud.py:Loud", "--input", "2x3", *MODEL, "--json", "-")
    assert code == 0
    assert json.loads(out)["exporter"] == "script"
    assert "imported" in err
    assert "forward" in err


LOUD = """
import sys
import torch

assert len(sys.argv) == 1
print("imported")


class Loud(torch.nn.Module):
    def forward(self, x):
        import sibling
        print("forward")
        return x + 1
"""


def test_a_packages_own_file_is_not_replaced(folder, call):
    before = (folder / "net.py").read_bytes()
    code, _, err = call("net:block", *INPUT, "-o", "net.py")
    assert code == 2
    assert "input file" in err
    assert (folder / "net.py").read_bytes() == before


REFUSED = {
    "no input": (["net.py:block"], "Give --input"),
    "input": (["net.py:block", "--input", "1,4"], "is not written as [NAME=]SHAPE"),
    "one name": (["net.py:block", "--input", "a=1x4", "--input", "1x4"], "name all of the inputs"),
    "wrong shape": (["net.py:block", "--input", "1x3x8x8"], "cannot run on 1x3x8x8 float32"),
    "no factory": (["net.py:nobody", *INPUT], "there is no 'nobody' in net.py"),
    "no file": (["none.py:block", *INPUT], "there is no file none.py"),
    "no package": (["none_of_that:block", *INPUT], "No module named 'none_of_that'"),
    "target": (["net.py", *INPUT], "none of package.module:factory"),
    "argument": (["net.py:block", *INPUT, "--arg", "channels"], "not written as KEY=VALUE"),
    "training": (["net.py:Stubborn", *INPUT], "stays in training mode"),
    "noise": (["net.py:Noisy", *INPUT], "another one at every run"),
    "no checkpoint": (["net.py:block", *INPUT, "--checkpoint", "w.pt"], "w.pt: cannot be read"),
    "missing key": (["net.py:block", *INPUT, "--checkpoint", "half.pt"], "no 'wide.weight'"),
    "axis": (["net.py:block", *INPUT, "--dynamic", "rows"], "no axis is named 'rows'"),
    "axes": (["net.py:block", *INPUT, "--dynamic", "image=rows"], "INPUT=AXIS:NAME"),
    "opset": (["net.py:block", *INPUT, "--opset", "0"], "--opset"),
    "exporter": (["net.py:block", *INPUT, "--exporter", "fast"], "--exporter"),
    "output folder": (["net.py:block", *INPUT, "-o", "no/m.onnx"], "there is no folder"),
    "output is the target": (["net.py:block", *INPUT, "-o", "net.py"], "input file"),
    "output is the checkpoint": (
        ["net.py:block", *INPUT, "--checkpoint", "half.pt", "-o", "half.pt"],
        "input file",
    ),
    "huge input": (["net.py:block", "--input", "9x99999999999"], "9x99999999999 is too large"),
    "seed": (["net.py:block", *INPUT, "--seed", "9" * 30], "--seed"),
    "no program": (["net.pt2"], "net.pt2: cannot be read"),
    "broken program": (["broken.pt2"], "broken.pt2: not a program of torch.export.save"),
    "input of a program": (["broken.pt2", *INPUT], "brings its weights and inputs"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses_in_one_line(folder, call, arguments, said):
    torch.save({"norm.bias": torch.ones(4)}, "half.pt")
    (folder / "broken.pt2").write_text("no archive")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = call(*MODEL, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("onnxfuse: ")
    assert err.count("\n") == 1
    assert said in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_that_differs_is_another_exit_code(folder, call):
    code, out, err = call("tests.exporter.modules:Strided", *INPUT, "--dynamic", "width", *MODEL)
    assert (code, out) == (3, "")
    assert "1x4x8x12 output 'output'" in err
    assert err.count("\n") == 1
    assert not (folder / "m.onnx").exists()


def test_without_torch_one_line_says_what_to_install(folder, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = call("net.py:block", *INPUT, *MODEL)
    assert code == 2
    assert "pip install 'onnxfuse[export]'" in err
