"""The README's examples are what the code prints."""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxfuse.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block_after(mark, language):
    match = re.search(rf"{re.escape(mark)}\n+```{language}\n(.*?)```", README, re.DOTALL)
    assert match is not None, mark
    return match.group(1)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models" / "three_branch.onnx", tmp_path / "models")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checkout")
def test_inspect_prints_what_the_readme_shows():
    result = CliRunner().invoke(main, ["inspect", "models/three_branch.onnx"], terminal_width=80)
    shown = [line.rstrip() for line in result.output.splitlines()]
    error = re.compile(r" *\d\.\de-\d\d")
    expected = block_after("<!-- inspect output -->", "text").splitlines()
    assert [error.sub(" E", line) for line in shown] == [error.sub(" E", line) for line in expected]


@pytest.mark.slow
def test_export_prints_what_the_readme_shows(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("*.onnx"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    command = shlex.split(block_after("<!-- export command -->", "bash"))
    result = CliRunner().invoke(main, command[1:])
    shown = [line.rstrip() for line in result.output.splitlines()]
    error = re.compile(r" *\d\.\de-\d\d")
    expected = block_after("<!-- export output -->", "text").splitlines()
    assert [error.sub(" E", line) for line in shown] == [error.sub(" E", line) for line in expected]


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("command", ["check", "bench"])
def test_measurements_print_what_the_readme_shows_up_to_numbers(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    CliRunner().invoke(main, ["optimize", "models/three_branch.onnx", "--quiet"])
    arguments = shlex.split(block_after(f"<!-- {command} command -->", "bash"))[1:]
    rounds = ["--rounds", "6"] if command == "bench" else []
    result = CliRunner().invoke(main, [*arguments, *rounds])
    assert result.exit_code == 0
    varying = f"{' '.join(arguments)} no faster slower"  # names are cut where numbers are long
    words = re.compile(r"[A-Za-z_./]{2,}")
    machine = re.compile(
        r".*ONNX Runtime \d.*|fewer than .*|the medians with .*|medians of .*|.* not idle.*"
    )
    shown, expected = (
        [
            [word for word in words.findall(line) if word not in varying]
            for line in text.splitlines()
            if not machine.fullmatch(line)
        ]
        for text in (result.output, block_after(f"<!-- {command} output -->", "text"))
    )
    assert [line for line in shown if line] == [line for line in expected if line]


@pytest.mark.usefixtures("checkout")
def test_the_python_example_prints_what_the_readme_shows():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block_after("## From Python", "python"), {})
    assert printed.getvalue() in README
    assert Path("models/three_branch.fused.onnx").is_file()


def test_the_commands_are_there():
    assert "onnxfuse optimize models/three_branch.onnx" in block_after(
        "<!-- main command -->", "bash"
    )
    assert "pytest" in block_after("<!-- test command -->", "bash")
