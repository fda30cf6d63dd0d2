"""Peak memory, in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from onnxfuse.benchmark import memory, processes
from onnxfuse.benchmark.memory import ModelFile, peak_memory
from onnxfuse.benchmark.memory_probe import resident
from onnxfuse.benchmark.settings import Settings
from onnxfuse.runtime import load_model, make_feeds
from tests.lift.building import Builder

CPU = Settings("CPUExecutionProvider", threads=1)
measurable = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="peak memory is not measured on this system"
)


def weighted(megabytes):
    """A matrix product with that many megabytes of weights."""
    b = Builder()
    x = b.input(1, 1000)
    weight = np.ones((1000, megabytes * 250), np.float32)
    return b.model(b.op("MatMul", x, b.constant(weight), output="y"))


@pytest.mark.slow
@measurable
def test_larger_weights_take_more_memory():
    peaks = []
    for megabytes in (1, 60):
        with load_model(weighted(megabytes)) as model:
            peak, why = peak_memory(model, CPU, make_feeds(model.inputs, {}))
        assert why == ""
        peaks.append(peak)
    assert peaks[0] > 0
    assert 50e6 < peaks[1] - peaks[0] < 400e6


@measurable
def test_what_the_process_itself_takes_is_not_counted():
    with load_model(weighted(1)) as model:
        peak, _ = peak_memory(model, CPU, make_feeds(model.inputs, {}))
    now, most = resident()
    assert 0 < now <= most
    assert peak < 30e6


@measurable
def test_what_goes_wrong_is_told(tmp_path):
    peak, why = peak_memory(ModelFile(tmp_path / "none.onnx", "none.onnx"), CPU, {})
    assert peak is None
    assert why.startswith("none.onnx: peak memory was not measured: ")
    assert "\n" not in why


@measurable
def test_a_process_that_hangs(monkeypatch, tmp_path):
    def run(*_, **options):
        raise subprocess.TimeoutExpired("python", options["timeout"])

    monkeypatch.setattr(processes.subprocess, "run", run)
    peak, why = peak_memory(ModelFile(tmp_path / "a.onnx", "a.onnx"), CPU, {})
    assert peak is None
    assert "600" in why


def test_systems_that_do_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    peak, why = peak_memory(ModelFile(tmp_path / "a.onnx", "a.onnx"), CPU, {})
    assert (peak, why) == (None, "peak memory is measured on Linux and macOS only")
