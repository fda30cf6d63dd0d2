import gc
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxfuse import CertificateError, __version__, fold
from onnxfuse.cli import main
from scripts.bench_optimizer import multi_branch
from tests.io.building import external

MODEL = multi_branch(16).SerializeToString()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a model of two blocks in it."""
    (tmp_path / "model.onnx").write_bytes(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def results(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(5).standard_normal((1, 8, 16, 16)).astype(np.float32)
    return session.run(None, {"x": x})[0]


# What it writes ----------------------------------------------------------------------------------


def test_the_result_goes_beside_the_model(folder, call):
    code, out, err = call("optimize", "model.onnx")
    assert (code, err) == (0, "")
    assert files(folder) == ["model.fused.onnx", "model.onnx"]
    assert operators("model.fused.onnx") == ["Conv", "Relu"] * 2
    assert out.splitlines()[-1] == "model.onnx -> model.fused.onnx"
    assert "2 folds, each certified in float64" in out
    assert (folder / "model.onnx").read_bytes() == MODEL
    np.testing.assert_allclose(results("model.fused.onnx"), results("model.onnx"), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.v2.onnx", "net.v2.fused.onnx"),
        ("net-1.5", "net-1.5.fused.onnx"),
        ("sub/model.onnx", "sub/model.fused.onnx"),
    ],
)
def test_the_name_of_the_result(folder, call, name, expected):
    (folder / "sub").mkdir()
    (folder / name).write_bytes(MODEL)
    assert call("optimize", folder / name, "-q") == (0, "", "")
    assert operators(folder / expected) == ["Conv", "Relu"] * 2


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_output(folder, call, option):
    (folder / "out").mkdir()
    code, _, err = call("optimize", "model.onnx", option, "out/small.onnx")
    assert (code, err) == (0, "")
    assert files(folder) == ["model.onnx", "out"]
    assert files(folder / "out") == ["small.onnx"]
    assert (folder / "model.onnx").read_bytes() == MODEL


def test_an_older_result_is_replaced(folder, call):
    (folder / "model.fused.onnx").write_bytes(b"old")
    assert call("optimize", "model.onnx", "--quiet") == (0, "", "")
    assert operators("model.fused.onnx") == ["Conv", "Relu"] * 2


def test_inspect_writes_nothing(folder, call):
    code, out, err = call("inspect", "model.onnx")
    assert (code, err) == (0, "")
    assert "2 folds" in out
    assert files(folder) == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == MODEL


@pytest.mark.parametrize("command", ["optimize", "inspect"])
def test_quiet_prints_nothing(folder, call, command):
    assert call(command, "model.onnx", "--quiet") == (0, "", "")


@pytest.mark.parametrize("command", ["optimize", "inspect"])
def test_json_to_a_file(folder, call, command):
    code, out, _ = call(command, "model.onnx", "--json", "report.json")
    assert code == 0
    assert "2 folds" in out
    assert len(json.loads((folder / "report.json").read_text())["folds"]) == 2


@pytest.mark.parametrize("quiet", [True, False])
def test_json_to_standard_output(folder, call, quiet):
    code, out, err = call("inspect", "model.onnx", "--json", "-", *["-q"] * quiet)
    assert code == 0
    assert len(json.loads(out)["folds"]) == 2
    assert ("2 folds" in err) != quiet
    assert files(folder) == ["model.onnx"]


def test_skip_and_keep_reach_the_optimizer(folder, call):
    skipped = ["--skip", "BatchNormalization", "--skip", "Add"]
    assert call("optimize", "model.onnx", "-q", *skipped) == (0, "", "")
    assert {"BatchNormalization", "Add"} <= set(operators("model.fused.onnx"))
    kept = ["--keep", "block0.conv3", "--keep", "block1.norm1"]
    assert call("optimize", "model.onnx", "-q", *kept) == (0, "", "")
    made = {name for node in onnx.load("model.fused.onnx").graph.node for name in node.output}
    assert {"block0.conv3", "block1.norm1"} <= made


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["optimize", "--help"]], ids=str)
def test_help(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: onnxfuse")


def test_version(call):
    assert call("--version") == (0, f"onnxfuse, version {__version__}\n", "")


# What it refuses ---------------------------------------------------------------------------------

NAME = b"\x1b[2Jk\n\rX"
FILES = {
    "empty": b"",
    "text": b"hello\nworld\n",
    "noise": np.random.default_rng(3).bytes(3000),
    "one byte": MODEL[:1],
    "ten bytes": MODEL[:10],
    "half": MODEL[: len(MODEL) // 2],
    "all but a byte": MODEL[:-1],
    "only a tensor": onnx.load_from_string(MODEL).graph.initializer[0].SerializeToString(),
    "names that clash": MODEL.replace(b"block1.y", b"block0.y"),
    "names of control characters": MODEL.replace(b"block1.y", NAME).replace(b"block0.y", NAME),
}


def refused(folder, call, said, *arguments, code=2):
    """Checks that one line on stderr is all that a command leaves behind."""
    before = {path: path.is_file() and path.read_bytes() for path in folder.iterdir()}
    got, out, err = call(*arguments)
    assert (got, out) == (code, "")
    assert err.startswith("onnxfuse: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert said in err
    assert {path: path.is_file() and path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("command", [("optimize", "-o", "out.onnx"), ("inspect",)], ids=str)
def test_bad_files(folder, call, content, command):
    (folder / "bad.onnx").write_bytes(content)
    refused(folder, call, "bad.onnx: ", *command, "bad.onnx")


ARGUMENTS = {
    "missing": (["missing.onnx", "-o", "out.onnx"], "missing.onnx: cannot be read"),
    "folder": (["sub", "-o", "out.onnx"], "sub: cannot be read"),
    "here": (["."], "cannot be read"),
    "nothing": ([""], "cannot be read"),
    "no model": ([], "MODEL"),
    "two models": (["model.onnx", "model.onnx"], "extra argument"),
    "output is the input": (["model.onnx", "-o", "model.onnx"], "input file"),
    "output folder missing": (["model.onnx", "-o", "no/out.onnx"], "there is no folder"),
    "output is a folder": (["model.onnx", "-o", "sub"], "is a folder"),
    "unknown option": (["model.onnx", "--fast", "-o", "out.onnx"], "--fast"),
    "unknown skip": (["model.onnx", "--skip", "Frob", "-o", "out.onnx"], "no rule is named 'Frob'"),
    "unknown keep": (["model.onnx", "--keep", "t9", "-o", "out.onnx"], "tensor named 't9'"),
    "json folder missing": (["model.onnx", "--json", "no/r.json"], "there is no folder"),
    "json is a folder": (["model.onnx", "--json", "sub"], "is a folder"),
    "json is the input": (["model.onnx", "--json", "model.onnx"], "input file"),
    "json is the output": (["model.onnx", "--json", "out", "-o", "./out"], "both be written"),
    "json cannot be written": (["model.onnx", "--json", "n" * 300], "cannot be written"),
}


@pytest.mark.parametrize(("arguments", "said"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments(folder, call, arguments, said):
    (folder / "sub").mkdir()
    refused(folder, call, said, "optimize", *arguments)


@pytest.fixture
def split(folder):
    """The same model as net.model, whose weights are in net.bin."""
    external(onnx.load("model.onnx"), folder).rename("net.model")


TAKEN = {
    "json": (["optimize", "net.model", "-o", "out.onnx", "--json", "net.bin"], "input file"),
    "page": (["inspect", "net.model", "--report", "net.bin"], "input file"),
    "checked": (["check", "model.onnx", "net.model", "--json", "net.bin"], "input file"),
    "measured": (["bench", "model.onnx", "net.model", "--report", "./net.bin"], "input file"),
    "output": (["optimize", "net.model", "-o", "net.bin", "--json", "new.json"], "input file"),
    "its data": (["optimize", "net.model", "-o", "net", "--json", "new.json"], "data is a folder"),
    "its link": (["optimize", "net.model", "-o", "far", "--json", "new.json"], "not beside"),
    "page for data": (
        ["optimize", "net.model", "-o", "c.onnx", "--report", "c.onnx.data"],
        "both be written to c.onnx.data",
    ),
    "json for data": (
        ["optimize", "model.onnx", "-o", "c.onnx", "--json", "sub/../c.onnx.data"],
        "both be written to sub/../c.onnx.data",
    ),
    "page and json": (["inspect", "net.model", "--json", "r", "--report", "./r"], "both be"),
}


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize(("arguments", "said"), TAKEN.values(), ids=TAKEN)
def test_data_beside_a_model_is_not_replaced(folder, call, arguments, said):
    (folder / "sub").mkdir()
    (folder / "net.data").mkdir()
    (folder / "far.data").symlink_to("sub/far.data")
    refused(folder, call, said, *arguments)


def test_an_unknown_command(folder, call):
    refused(folder, call, "No such command", "frobnicate", "model.onnx")


def test_a_fold_that_cannot_be_proved_is_another_exit_code(folder, call, monkeypatch):
    def fail(*_, **__):
        raise CertificateError("block0.total: differs by 0.5")

    monkeypatch.setattr(fold, "certify", fail)
    arguments = ["model.onnx", "-o", "out.onnx", "--json", "report.json"]
    refused(folder, call, "differs by 0.5", "optimize", *arguments, code=3)


def test_an_interruption_leaves_nothing_behind(folder, call, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fold, "certify", interrupt)
    code, out, err = call("optimize", "model.onnx")
    assert (code, out, err.strip()) == (2, "", "onnxfuse: interrupted")
    assert files(folder) == ["model.onnx"]


# The program -------------------------------------------------------------------------------------


def test_python_dash_m(folder):
    command = [sys.executable, "-m", "onnxfuse", "optimize"]
    done = subprocess.run([*command, "model.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(folder) == ["model.fused.onnx", "model.onnx"]
    done = subprocess.run([*command, "missing.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("onnxfuse: missing.onnx: cannot be read")
    assert done.stderr.count("\n") == 1


def test_a_pipe_is_read_once(folder):
    command = [sys.executable, "-m", "onnxfuse", "optimize", "-q", "/dev/stdin", "-o", "out.onnx"]
    subprocess.run([*command, "--json", "report.json"], input=MODEL, check=True)
    assert operators("out.onnx") == ["Conv", "Relu"] * 2


def test_only_the_program_switches_garbage_collection_off(folder, call, monkeypatch, capfd):
    switched = []
    monkeypatch.setattr(gc, "disable", lambda: switched.append("off"))
    call("inspect", "model.onnx")
    assert not switched
    with pytest.raises(SystemExit):
        main(["--version"])
    assert switched == ["off"]
    capfd.readouterr()
