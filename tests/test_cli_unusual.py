"""The command line where the machine, the terminal or an argument is not as usual."""

import subprocess
import sys

import pytest

from onnxfuse import ModelError, pipeline
from tests.io.building import conv

PROGRAM = [sys.executable, "-m", "onnxfuse"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "net.onnx").write_bytes(conv().SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("command", ["optimize", "inspect", "check"])
def test_running_out_of_memory_is_one_line(folder, call, monkeypatch, command):
    monkeypatch.setattr(pipeline, "optimize", raising(MemoryError("4 TiB")))
    assert call(command, "net.onnx") == (2, "", "onnxfuse: out of memory\n")
    assert [path.name for path in folder.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("character", "times"), [("x", 5_000_000), ("\x1b", 5000), ("\u202e", 5000), ("\n ", 5000)]
)
def test_a_long_message_is_cut_in_the_middle(folder, call, monkeypatch, character, times):
    message = f"it begins {character * times} and ends"
    monkeypatch.setattr(pipeline, "optimize", raising(ModelError(message)))
    code, out, err = call("inspect", "net.onnx")
    assert (code, out) == (2, "")
    assert err.startswith("onnxfuse: it begins ")
    assert err.endswith(" and ends\n")
    assert err[:-1].isprintable()
    assert len(err) < 4100


LONG = "9" * 5000


NUMBERS = {
    "threads": ("--threads", "3000000000", "--threads"),
    "many threads": ("--threads", LONG, "--threads"),
    "no threads": ("--threads", "0", "--threads"),
    "size": ("--size", "N=" + "9" * 19, "is not written as NAME=EXTENT"),
    "size of many digits": ("--size", f"N={LONG}", "is not written as NAME=EXTENT"),
}


@pytest.mark.parametrize(("option", "number", "said"), NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("command", ["check", "bench"])
def test_numbers_that_are_too_large_are_one_line(folder, call, command, option, number, said):
    code, out, err = call(command, "net.onnx", option, number)
    assert (code, out) == (2, "")
    assert err.startswith("onnxfuse: ")
    assert (err.count("\n"), err[-1]) == (1, "\n")
    assert said in err
    assert len(err) < 4100


def closed():
    """Standard output that nobody reads on."""
    reader = subprocess.Popen([sys.executable, "-S", "-c", ""], stdin=subprocess.PIPE)
    reader.wait()
    return reader.stdin


SMALL = ["--size", "N=1,H=4,W=4"]
PRINTING = {
    "tables": ["inspect", "net.onnx"],
    "json": ["inspect", "net.onnx", "--json", "-", "-q"],
    "agreement": ["check", "net.onnx", "net.onnx", *SMALL],
}


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_a_pipe_that_nobody_reads_ends_the_program_quietly(folder, arguments):
    with closed() as nobody:
        done = subprocess.run([*PROGRAM, *arguments], stdout=nobody, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (128 + 13, b"")


def test_an_error_that_cannot_be_printed_is_still_an_exit_code(folder):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, "inspect", "gone.onnx"], stdout=full, stderr=full)
    assert done.returncode == 2
