import os
import stat
from pathlib import Path

import pytest

from onnxfuse import io
from onnxfuse.errors import ModelError
from tests.io.building import (
    conv,
    external,
    no_leftovers,
)


@pytest.mark.parametrize("link", [None, "relative", "symlink", "hard link"])
def test_refuses_to_replace_the_input(tmp_path, monkeypatch, link):
    path = tmp_path / "a.onnx"
    path.write_bytes(conv().SerializeToString())
    source = io.read(path)
    target = tmp_path / "b.onnx"
    if link == "symlink":
        target.symlink_to(path)
    elif link == "hard link":
        target.hardlink_to(path)
    elif link == "relative":
        monkeypatch.chdir(tmp_path)
        target = Path("a.onnx")
    else:
        target = path
    with pytest.raises(ModelError, match="input file"):
        io.write(source, target)
    assert path.read_bytes() == conv().SerializeToString()
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("target", ["out.onnx", "out.onnx.data"])
def test_refuses_to_replace_the_input_data(tmp_path, target):
    path = external(conv(), tmp_path, location="out.onnx.data")
    data = (tmp_path / "out.onnx.data").read_bytes()
    with pytest.raises(ModelError, match="input file"):
        io.write(io.read(path), tmp_path / target)
    assert (tmp_path / "out.onnx.data").read_bytes() == data
    assert no_leftovers(tmp_path)


def test_replaces_an_older_output_and_keeps_its_mode(tmp_path):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    io.write(conv(), path)
    assert path.read_bytes() == conv().SerializeToString()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_output_has_the_usual_mode(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    io.write(conv(), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_writes_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "out.onnx").write_bytes(b"old")
    (tmp_path / "out.onnx").symlink_to("real/out.onnx")
    io.write(conv(), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").is_symlink()
    assert (tmp_path / "real" / "out.onnx").read_bytes() == conv().SerializeToString()


@pytest.mark.parametrize("to", ["../other/weights.bin", "../other/new.bin", "out.onnx"])
def test_refuses_data_behind_a_link_out_of_the_folder(tmp_path, to):
    """The model would not find it, and a file elsewhere would be lost."""
    model, other = tmp_path / "model", tmp_path / "other"
    model.mkdir()
    other.mkdir()
    (model / "out.onnx").write_bytes(b"old")
    (other / "weights.bin").write_bytes(b"of another model")
    (model / "out.onnx.data").symlink_to(to)
    with pytest.raises(ModelError, match="not beside the model"):
        io.write(conv(), model / "out.onnx", limit=1000)
    assert sorted(os.listdir(model)) == ["out.onnx", "out.onnx.data"]
    assert (model / "out.onnx").read_bytes() == b"old"
    assert os.listdir(other) == ["weights.bin"]
    assert (other / "weights.bin").read_bytes() == b"of another model"


def test_data_behind_a_link_within_the_folder_is_found(tmp_path):
    (tmp_path / "out.onnx.data").symlink_to("weights.bin")
    io.write(conv(), tmp_path / "out.onnx", limit=1000)
    source = io.read(tmp_path / "out.onnx")
    source.embed()
    assert source.model == conv()
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data", "weights.bin"]


def test_refuses_places_that_are_no_files(tmp_path):
    with pytest.raises(ModelError, match="is a folder"):
        io.write(conv(), tmp_path)
    with pytest.raises(ModelError, match="there is no folder"):
        io.write(conv(), tmp_path / "nowhere" / "out.onnx")
    with pytest.raises(ModelError, match="no plain file"):
        io.write(conv(), os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(ModelError, match="cannot be written"):
        io.write(conv(), tmp_path / ("n" * 300))
    (tmp_path / "out.onnx.data").mkdir()
    with pytest.raises(ModelError, match="is a folder"):
        io.write(conv(), tmp_path / "out.onnx", limit=1000)
    assert os.listdir(tmp_path) == ["out.onnx.data"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_an_unwritable_folder_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ModelError, match="denied"):
        io.write(conv(), tmp_path / "out.onnx")


@pytest.mark.parametrize("limit", [io.PROTOBUF_LIMIT, 1000])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failures_leave_the_old_output_and_nothing_else(
    tmp_path, monkeypatch, limit, failing, error
):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, failing, fail)
    expected = ModelError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        io.write(conv(), path, limit=limit)
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert path.read_bytes() == b"old"


def test_the_model_is_put_in_place_after_its_data(tmp_path, monkeypatch):
    moved = []
    replace = os.replace

    def note(source, target):
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    io.write(conv(), tmp_path / "out.onnx", limit=1000)
    assert moved == ["out.onnx.data", "out.onnx"]
