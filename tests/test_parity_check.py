"""The parity-check script: its table, its files, its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "three_branch.onnx"


def run(*arguments, cwd):
    command = [sys.executable, ROOT / "scripts" / "parity_check.py", "--rounds", "6", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_file_from_any_folder(tmp_path):
    done = run(MODEL, "--output", tmp_path / "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].startswith("| three_branch | cpu | 45 (12) | 15 (6) |  | agrees |")
    table = (tmp_path / "results" / "parity.md").read_text()
    assert done.stdout.strip() in table
    assert "processor: " in table
    data = json.loads((tmp_path / "results" / "parity.json").read_text())
    (row,) = [row for row in data["rows"] if row["provider"] == "cpu"]
    assert row["nodes"] == {"training": [45, 12], "fused": [15, 6]}
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert "| all | cuda | not available here |" in done.stdout
        assert data["missing"] == {"cuda": "not available here"}


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("missing.onnx", "text.onnx"):
        done = run(name, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert name in done.stderr


@pytest.mark.slow
def test_providers_are_those_asked_for(tmp_path):
    done = run(MODEL, "--provider", "cpu", "--provider", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[1] for line in done.stdout.splitlines()[2:]] == ["cpu", "none"]
    assert "| all | none | not available here |" in done.stdout


@pytest.mark.slow
def test_a_network_with_its_deploy_form(tmp_path):
    done = run("--only", "three_branch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| three_branch | cpu | 33 (12) | 15 (6) | 15 (6) | agrees |" in done.stdout


@pytest.mark.slow
def test_a_network_whose_deploy_form_differs_is_exit_code_1(tmp_path, monkeypatch, capsys):
    from scripts import parity_check

    model = onnx.load(MODEL)
    other = onnx.load(MODEL)
    bias = next(t for t in other.graph.initializer if t.dims == [10])
    value = numpy_helper.to_array(bias).copy()
    value[3] += 1e-3
    bias.CopyFrom(numpy_helper.from_array(value, bias.name))
    network = parity_check.Network("net", model, other)
    monkeypatch.setattr(parity_check, "networks", lambda paths, only: iter([network]))
    monkeypatch.setattr(sys, "argv", ["parity_check.py", "--rounds", "3"])
    with pytest.raises(SystemExit) as stop:
        parity_check.main()
    assert stop.value.code == 1
    assert "deploy differs: " in capsys.readouterr().out
