import os
from pathlib import Path

import pytest

import onnxfuse
from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.io.files import content_of
from tests.io.building import conv


@pytest.fixture
def pipe():
    """A path that 5000 bytes can be read from, once."""
    read, write = os.pipe()
    os.write(write, b"12345" * 1000)
    os.close(write)
    yield Path(f"/dev/fd/{read}")
    os.close(read)


def test_what_comes_through_a_pipe_is_read(pipe):
    assert content_of(pipe) == b"12345" * 1000


def test_no_more_is_read_from_a_pipe_than_a_message_can_be(pipe, monkeypatch):
    monkeypatch.setattr(io.files, "PROTOBUF_LIMIT", 2999)
    monkeypatch.setattr(io.files, "_CHUNK", 1000)
    with pytest.raises(ModelError, match="larger than 2 GiB"):
        content_of(pipe)
    assert len(pipe.read_bytes()) == 2000


def test_devices_are_not_read(tmp_path):
    (tmp_path / "input_0.pb").symlink_to(os.devnull)
    (tmp_path / "net.onnx").write_bytes(conv().SerializeToString())
    for read in (
        lambda: io.read(os.devnull),
        lambda: onnxfuse.check(tmp_path / "net.onnx", inputs=tmp_path),
    ):
        with pytest.raises(ModelError, match="a device, not a file"):
            read()


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
