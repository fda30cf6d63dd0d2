"""scripts/bench_quantize.py: one network, and the table."""

import json

import pytest

from onnxfuse.benchmark import Interval
from onnxfuse.quantization import Form, Quality, QuantizeReport, comparing
from scripts import bench_quantize


@pytest.mark.slow
def test_a_network_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparing, "ROUNDS", 20)
    numbers = tmp_path / "numbers.json"
    bench_quantize.main(["--digits", "--networks", "three_branch", "--json", str(numbers)])
    out = capsys.readouterr().out
    assert "| three_branch | float | " in out
    assert "|  | int8, folded | " in out
    assert "1 thread; ONNX Runtime" in out
    assert len(json.loads(numbers.read_text())["three_branch"]["forms"]) == 5


def test_what_failed_is_in_the_table():
    one = Interval(1.0, 1.0, 1.0)
    forms = (
        Form("float", 10**6, Quality(0.5, None, None), Interval(2e-3, 1e-3, 3e-3), one),
        Form("int8", failure="no"),
    )
    report = QuantizeReport(forms, (), (), (), "minmax", 8, "why", "a", 1, "b", 1)
    assert bench_quantize.markdown([("net", report)]).splitlines()[2:] == [
        "| net | float | 50.00% |  | 1 | 2 | 1 |",
        "|  | int8 | no | | | | |",
    ]
