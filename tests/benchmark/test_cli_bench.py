"""`onnxfuse bench`: what it prints, writes and refuses."""

import json
from functools import partial

import pytest

from onnxfuse.benchmark import BenchResult, Interval, Timing
from onnxfuse.benchmark.terminal import number, show_bench
from tests.benchmark.building import image_net, save

QUICK = ("--rounds", "2", "--warm-up", "0", "--threads", "1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with two models in it."""
    save(tmp_path / "a.onnx", image_net("batch", 4, "height", "width"))
    save(tmp_path / "b.onnx", image_net("n", 4, "h", "w", name="picture"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def call(call):
    """Runs `onnxfuse bench`."""
    return partial(call, "bench")


@pytest.mark.slow
def test_a_table_for_each_batch(folder, call):
    options = ("--batch", "1,3", "--size", "height=8,width=9")
    code, out, err = call("a.onnx", "b.onnx", *QUICK, *options, "--profile")
    assert (code, err) == (0, "")
    assert "cpu, batch 1 (x 1x4x8x9)" in out
    assert "cpu, batch 3 (x 3x4x8x9)" in out
    assert out.count("a.onnx") == out.count("b.onnx") == 4
    assert "speedup" in out
    assert "Conv" in out
    assert "medians of 2 rounds in turn" in out
    assert "1 thread; ONNX Runtime" in out
    assert sorted(path.name for path in folder.iterdir()) == ["a.onnx", "b.onnx"]


@pytest.mark.usefixtures("folder")
def test_json_to_standard_output(call):
    code, out, err = call("a.onnx", *QUICK, "--size", "height=8,width=8", "--json", "-")
    assert code == 0
    data = json.loads(out, parse_constant=pytest.fail)
    assert data["timings"][0]["model"] == "a.onnx"
    assert data["threads"] == 1
    assert "cpu, batch 1" in err


def test_json_to_a_file_and_nothing_printed(folder, call):
    result = call("a.onnx", *QUICK, "--size", "height=8,width=8", "--json", "r.json", "-q")
    assert result == (0, "", "")
    assert len(json.loads((folder / "r.json").read_text())["timings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "MODEL"),
        (["missing.onnx"], "missing.onnx: cannot be read"),
        (["text.onnx"], "text.onnx: "),
        (["a.onnx", "missing.onnx"], "missing.onnx: cannot be read"),
        (["a.onnx", "--providers", "cuda"], "onnxruntime-gpu brings it"),
        (["a.onnx", "--providers", "cpu,warp"], "knows no provider 'warp'"),
        (["a.onnx", "--batch", "1,x"], "'x' is no batch size"),
        (["a.onnx", "--batch", "0"], "'0' is no batch size"),
        (["a.onnx", "--size", "height"], "NAME=EXTENT"),
        (["a.onnx", "--size", "depth=3"], "no input has a symbolic dimension 'depth'"),
        (["a.onnx", "--rounds", "0"], "--rounds"),
        (["a.onnx", "--threads", "0"], "--threads"),
        (["a.onnx", "--optimization", "most"], "--optimization"),
        (["a.onnx", "--inputs", "none.npz"], "none.npz"),
        (["a.onnx", "--json", "a.onnx"], "input file"),
        (["a.onnx", "--json", "no/r.json"], "there is no folder"),
        (["a.onnx", "--report", "a.onnx"], "input file"),
        (["a.onnx", "fixed.onnx"], "fixed.onnx: input 'x' float32 1x4x5x5 cannot take"),
    ],
)
def test_what_it_refuses(folder, call, monkeypatch, arguments, said):
    import onnxruntime

    if "cuda" in arguments:
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
        )
    (folder / "text.onnx").write_text("hello\nworld\n")
    save(folder / "fixed.onnx", image_net(1, 4, 5, 5))
    before = sorted(folder.iterdir())
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("onnxfuse: ")
    assert err.count("\n") == 1
    assert said in err
    assert sorted(folder.iterdir()) == before


def timing(model, milliseconds, ratio, **more):
    latency = Interval(*(milliseconds * factor / 1000 for factor in (1, 0.9, 1.1)))
    fields = {
        "provider": "cpu",
        "shapes": {"x": (1, 3, 8, 8)},
        "batch": 1,
        "throughput": 1000 / milliseconds,
        "peak_memory": 12_345_678,
        "session_seconds": 0.0123,
        "seconds": (1.0,) * 20,
    }
    given = {**fields, **more}
    return Timing(model=model, latency=latency, ratio=Interval(ratio, 0.95, 1.25), **given)


def printed(capsys, *timings, **more):
    from rich.console import Console

    machine = {"processor": "Some CPU", "cores": "2", "onnxruntime": "1.99"}
    given = {"threads": None, "optimization": "all", "machine": machine, **more}
    show_bench(Console(width=100), BenchResult(tuple(timings), **given))
    return capsys.readouterr().out


def test_what_the_tables_hold(capsys):
    first = timing("a.onnx", 12.3456, 1.0)
    second = timing("b[1].onnx", 0.12346, 1.2346, peak_memory=None)
    out = printed(capsys, first, second, notes=("something else",))
    for text in ("12.35", "11.11-13.58", "0.1235", "0.1111-0.1358", "1.235", "0.950-1.250"):
        assert text in out
    assert "b[1].onnx" in out
    assert "12.35 │    12.30" in out
    assert "8,100" in out
    assert "Some CPU, the runtime's choice of threads on 2 cores; ONNX Runtime 1.99" in out
    assert out.splitlines()[-1] == "something else"


def test_a_gpu_is_named(capsys):
    machine = {"processor": "C", "cores": "8", "onnxruntime": "1.99", "gpu": "Some GPU, 570"}
    out = printed(capsys, timing("a", 1, 1, provider="cuda"), machine=machine, threads=4)
    assert "cuda, batch 1 (x 1x3x8x8)" in out
    assert "Some GPU, 570, C, 4 threads" in out


def test_operators_side_by_side(capsys):
    many = {f"Op{index}": 0.01 for index in range(20)}
    first = timing("a", 1, 1, operators={"Conv": 0.8, **many})
    second = timing("b", 1, 1, operators={"Conv": 0.75, "Relu": 0.25})
    out = printed(capsys, first, second)
    rows = [line.split() for line in out.splitlines()]
    assert ["│", "Conv", "│", "80.0%", "│", "75.0%", "│"] in rows
    assert ["│", "Relu", "│", "│", "25.0%", "│"] in rows
    assert "10 more (--json lists all)" in out


def test_numbers_have_four_digits():
    shown = [number(value) for value in (0.00012345, 0.12346, 1.2346, 123.45, 12345.6, 0.0)]
    assert shown == ["0.0001234", "0.1235", "1.235", "123.5", "12,346", "0"]


def test_report_is_a_page(folder, call):
    sizes = ("--size", "height=8,width=8")
    assert call("a.onnx", "b.onnx", *QUICK, *sizes, "--report", "r.html", "-q") == (0, "", "")
    page = (folder / "r.html").read_text()
    assert "b.onnx" in page
    assert "95% confidence interval" in page
