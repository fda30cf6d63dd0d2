"""Names from a model in the tables of `inspect` and `optimize`: printed, not obeyed."""

import pytest
from onnx import helper

from onnxfuse.cli import main
from tests.handmade import build, integers, value
from tests.report.building import two_branches

NAMES = {
    "escape": ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    "control sequence": ("\x9b31m", r"\x9b31m"),
    "zero": ("\0", r"\x00"),
    "right to left": ("\u202egnp", r"\u202egnp"),
    "markup": ("[red]", "[red]"),
}


@pytest.fixture
def call(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main.main(args=list(map(str, arguments)), prog_name="onnxfuse")
        return (stop.value.code or 0, *capfd.readouterr())

    return run


def shown(call, folder, monkeypatch, model, command):
    """What a command prints of a model; all of it can be printed."""
    monkeypatch.chdir(folder)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    code, out, err = call(command, "net.onnx")
    assert (code, err) == (0, "")
    assert all(line.isprintable() for line in out.split("\n"))
    return out


@pytest.mark.parametrize("command", ["inspect", "optimize"])
@pytest.mark.parametrize(("name", "written"), NAMES.values(), ids=NAMES)
def test_names_of_folded_nodes(call, tmp_path, monkeypatch, command, name, written):
    out = shown(call, tmp_path, monkeypatch, two_branches(name), command)
    assert f"sum{written}" in out


@pytest.mark.parametrize("command", ["inspect", "optimize"])
@pytest.mark.parametrize(("name", "written"), NAMES.values(), ids=NAMES)
def test_names_of_operators(call, tmp_path, monkeypatch, command, name, written):
    node = helper.make_node(f"Foo{name}", ["x"], ["y"], f"foo{name}", domain="org.example")
    model = build([node], [value("x", (1, 4))], imports=[helper.make_opsetid("org.example", 1)])
    out = shown(call, tmp_path, monkeypatch, model, command)
    assert f"Foo{written}" in out


@pytest.mark.parametrize("command", ["inspect", "optimize"])
@pytest.mark.parametrize(("name", "written"), NAMES.values(), ids=NAMES)
def test_names_and_reasons_of_what_is_left(call, tmp_path, monkeypatch, command, name, written):
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["a"], f"pad{name}", mode=f"odd{name}"),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    pads = integers("p", *[0, 0, 1, 1] * 2)
    model = build(nodes, [value("x", (1, 4, 8, 8))], weights=[pads])
    out = shown(call, tmp_path, monkeypatch, model, command)
    assert f"pad{written}" in out
    assert f"odd{written}" in "".join(out.split("Left as they are")[1].split("\n"))
