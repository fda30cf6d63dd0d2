import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from onnxfuse import io
from onnxfuse.errors import ModelError
from tests.io.building import (
    BIAS,
    KERNEL,
    RNG,
    build,
    conv,
    relu,
    rich,
    value,
)


def test_reads_a_path_and_writes_the_same_bytes(tmp_path):
    path, copy = tmp_path / "a.onnx", tmp_path / "b.onnx"
    path.write_bytes(rich().SerializeToString())
    for given in (path, str(path)):
        source = io.read(given)
        assert source.path == path
        assert not source.external
        io.write(source, copy)
        assert copy.read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx"]


def test_reads_a_model_proto_without_holding_on_to_it():
    model = rich()
    before = model.SerializeToString()
    source = io.read(model)
    assert source.model == model
    source.model.graph.node[0].name = "other"
    source.model.graph.initializer[0].raw_data = b""
    assert model.SerializeToString() == before


def test_reads_a_graphsurgeon_graph():
    source = io.read(gs.import_onnx(conv()))
    assert [node.op_type for node in source.model.graph.node] == ["Conv"]
    np.testing.assert_array_equal(source.load(source.model.graph.initializer[0]), KERNEL)


def test_a_graphsurgeon_graph_that_cannot_be_exported_is_an_error():
    graph = gs.import_onnx(conv())
    graph.nodes[0].attrs["pads"] = object()
    with pytest.raises(ModelError, match="cannot export"):
        io.read(graph)


def test_reads_whatever_has_a_model_proto():
    class Program:
        model_proto = conv()

    source = io.read(Program())
    assert source.model == Program.model_proto
    assert source.model is not Program.model_proto


def test_other_objects_are_refused():
    with pytest.raises(ModelError, match="not int"):
        io.read(3)


def test_reading_imports_neither_torch_nor_graphsurgeon(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(conv().SerializeToString())
    code = (
        "import sys, onnx, onnxfuse.io as io\n"
        f"io.read({str(path)!r}); io.read(onnx.load({str(path)!r}))\n"
        "assert not {'torch', 'onnx_graphsurgeon'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(io.__file__).parents[2])


def header(**changes):
    model = conv()
    for name, content in changes.items():
        if content is None:
            model.ClearField(name)
        else:
            setattr(model, name, content)
    return model.SerializeToString()


FILES = {
    "missing": (None, "No such file"),
    "empty": (b"", "empty"),
    "text": (b"hello world, this is no model\n", "not an ONNX model"),
    "html": (b"<!DOCTYPE html><html></html>", "text file"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "zip": (b"PK\x03\x04rest", "zip"),
    "ort": (b"\x20\x00\x00\x00ORTM0000", "[.]ort"),
    "noise": (RNG.bytes(1000), "not an ONNX model"),
    "truncated": (conv().SerializeToString()[:-100], "cut short"),
    "tensor": (numpy_helper.from_array(BIAS, "b").SerializeToString(), "not an ONNX model"),
    "graph": (conv().graph.SerializeToString(), "not an ONNX model"),
    "no graph": (header(graph=None), "no graph"),
    "no opset": (header(opset_import=None), "no opset_import"),
    "no ir_version": (header(ir_version=None), "no ir_version"),
    "new ir_version": (header(ir_version=99), "IR version 99"),
}


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_unusable_files_are_told_in_one_line(tmp_path, content, said):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as error:
        io.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_told(tmp_path):
    with pytest.raises(ModelError, match="directory"):
        io.read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_told(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(conv().SerializeToString())
    path.chmod(0)
    with pytest.raises(ModelError, match="denied"):
        io.read(path)


def test_notes_that_are_not_utf8_survive(tmp_path):
    model = conv()
    model.doc_string = model.graph.doc_string = model.graph.initializer[0].doc_string = "NOTE"
    path, copy = tmp_path / "a.onnx", tmp_path / "b.onnx"
    path.write_bytes(model.SerializeToString().replace(b"NOTE", b"\xff\xfe\xfd\xfc"))
    io.write(io.read(path), copy)
    assert copy.read_bytes() == path.read_bytes()
    io.write(io.read(path), copy, limit=1000)
    assert copy.read_bytes().count(b"\xff\xfe\xfd\xfc") == 3


def test_a_tensor_without_enough_data_is_told_when_it_is_loaded():
    model = conv()
    model.graph.initializer[0].raw_data = b"123"
    source = io.read(model)
    with pytest.raises(ModelError, match="tensor 'w'"):
        source.load(source.model.graph.initializer[0])


def test_20000_nodes_and_big_weights_are_checked_quickly():
    nodes = [relu(f"n{i}", f"t{i}", f"t{i + 1}") for i in range(20_000)]
    big = numpy_helper.from_array(np.zeros(1 << 24, np.float32), "w")
    model = build(nodes, inputs=[value("t0")], outputs=[value("t20000")], weights=[big])
    start = os.times().user
    io.read(model)
    assert os.times().user - start < 3  # 0.3 s on an idle machine
