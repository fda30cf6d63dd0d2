import os

import pytest

from onnxfuse import io
from onnxfuse.errors import ModelError


def test_write_text_is_atomic_and_keeps_inputs(tmp_path):
    io.write_text("{}\n", tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == "{}\n"
    with pytest.raises(ModelError, match="input file"):
        io.write_text("{}\n", tmp_path / "report.json", tmp_path / "report.json")
    with pytest.raises(ModelError, match="there is no folder"):
        io.write_text("{}\n", tmp_path / "nowhere" / "report.json")
    assert os.listdir(tmp_path) == ["report.json"]


def test_check_target_does_not_need_the_inputs_to_be_there(tmp_path):
    target = io.check_target(tmp_path / "out.onnx", tmp_path / "missing.onnx")
    assert target == tmp_path / "out.onnx"
    with pytest.raises(ModelError, match="input file"):
        io.check_target(tmp_path / "same.onnx", tmp_path / "same.onnx")
