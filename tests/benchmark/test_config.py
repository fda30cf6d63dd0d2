"""`bench` with entries of the sessions' configuration."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxfuse
from onnxfuse import ModelError
from onnxfuse.report.html import bench_page
from tests.benchmark.building import QUICK, image_net
from tests.lift.building import Builder

ONCE = {"session.disable_quant_qdq": "1"}


@pytest.fixture
def stored():
    """A Conv whose weight is kept in 4 bits, with a scale for each block of 16 inputs."""
    b = Builder(opset=21)
    x = b.input(1, 32, 4, 4)
    codes = b.constant(np.ones((64, 32, 1, 1)), elem_type=TensorProto.INT4)
    scale = b.random(64, 2, 1, 1)
    weight = b.op("DequantizeLinear", codes, scale, axis=1, block_size=16)
    return b.model(b.op("Conv", x, weight), ir_version=10)


def test_weights_in_few_bits_are_computed_once(stored):
    options = {**QUICK, "profile": True}
    plain = onnxfuse.bench(stored, **options)
    once = onnxfuse.bench(stored, config=ONCE, **options)
    assert "DequantizeLinear" in plain.timings[0].operators
    assert "DequantizeLinear" not in once.timings[0].operators
    assert (dict(plain.config), dict(once.config)) == ({}, ONCE)
    assert json.loads(once.to_json())["config"] == ONCE
    page = bench_page(once)
    assert "session.disable_quant_qdq" in page


def test_memory_is_measured_with_the_same_entries(stored):
    result = onnxfuse.bench(stored, config=ONCE, **{**QUICK, "memory": True})
    assert result.timings[0].peak_memory is not None


def test_an_entry_that_the_runtime_refuses():
    key = "session." + "a" * 2000
    with pytest.raises(ModelError, match=r"session configuration session\.a+=1: Config key is"):
        onnxfuse.bench(image_net(1, 4, 8, 8), config={key: "1"}, **QUICK)


def test_on_the_command_line(stored, call, tmp_path):
    onnx.save(stored, tmp_path / "stored.onnx")
    quick = ("--rounds", "2", "--warm-up", "0", "--threads", "1")
    model = str(tmp_path / "stored.onnx")
    entries = ("--config", "session.disable_quant_qdq=1", "--config", "session.log_id=x")
    code, out, err = call("bench", model, *quick, *entries)
    assert (code, err) == (0, "")
    assert "optimization all, session.disable_quant_qdq=1, session.log_id=x" in out
    for text in ("session.disable_quant_qdq", "quant=1"):
        code, out, err = call("bench", model, *quick, "--config", text)
        assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
        assert "session configuration" in err
