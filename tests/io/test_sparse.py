"""Sparse tensors whose values or indices are in files beside the model."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.hollow import tensors
from onnxfuse.io import reading
from tests.io.building import CONDITION, OK_BODY, body, branch, build, external, relu, run, value

COUNT = 1000
DENSE = np.arange(2 * COUNT, dtype=np.float32) * (np.arange(2 * COUNT) < COUNT)
X = np.full(2 * COUNT, 0.5, np.float32)


def sparse(name="s"):
    values = numpy_helper.from_array(DENSE[:COUNT], name)
    indices = numpy_helper.from_array(np.arange(COUNT), "")
    return helper.make_sparse_tensor(values, indices, [2 * COUNT])


def outside(part, **entries):
    """The tensor, and its data, which is in a file from now on."""
    data = part.raw_data
    part.ClearField("raw_data")
    part.data_location = TensorProto.EXTERNAL
    for key, entry in {"location": "sparse.bin", "offset": 0, **entries}.items():
        part.external_data.add(key=key, value=str(entry))
    return data


def as_initializer(tensor):
    model = build([helper.make_node("Add", ["x", "s"], ["y"])], [value("x", (2 * COUNT,))])
    model.graph.sparse_initializer.append(tensor)
    return model


def as_attribute(tensor):
    nodes = [
        helper.make_node("Constant", [], ["s"], sparse_value=tensor),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    return build(nodes, [value("x", (2 * COUNT,))])


PLACES = {"initializer": as_initializer, "attribute": as_attribute}


def saved(folder, model, data):
    folder.mkdir(exist_ok=True)
    (folder / "sparse.bin").write_bytes(data)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


@pytest.mark.parametrize("part", ["values", "indices"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_data_outside_follows_the_model_to_another_folder(tmp_path, place, part):
    expected = place(sparse())
    tensor = sparse()
    data = outside(getattr(tensor, part))
    path = saved(tmp_path / "here", place(tensor), data)
    np.testing.assert_array_equal(run(path, X), X + DENSE)
    source = io.read(path)
    assert source.files == {path, path.with_name("sparse.bin")}
    assert not source.external
    assert source.model == expected
    (tmp_path / "there").mkdir()
    onnxfuse.optimize(path).save(tmp_path / "there" / "out.onnx")
    assert os.listdir(tmp_path / "there") == ["out.onnx"]
    np.testing.assert_array_equal(run(tmp_path / "there" / "out.onnx", X), X + DENSE)


def test_it_stays_in_the_model_when_dense_weights_do_not(tmp_path):
    tensor = sparse()
    weight = numpy_helper.from_array(np.ones(2 * COUNT, np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "s"], ["t"]), helper.make_node("Mul", "tw", ["y"])]
    model = build(nodes, [value("x", (2 * COUNT,))], weights=[weight])
    model.graph.sparse_initializer.append(tensor)
    (tmp_path / "sparse.bin").write_bytes(outside(model.graph.sparse_initializer[0].values))
    io.write(io.read(external(model, tmp_path)), tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert written.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert written.graph.sparse_initializer[0] == sparse()
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", X), X + DENSE)


ENTRIES = {
    "parent": ({"location": "../secret.bin"}, "outside the model's folder"),
    "absolute": ({"location": "/secret.bin"}, "not a relative path"),
    "link": ({"location": "link"}, "outside the model's folder"),
    "missing": ({"location": "gone"}, "cannot be read"),
    "past the end": ({"offset": 4}, "the file has"),
    "length": ({"length": 8}, "the model says 8"),
}


@pytest.mark.parametrize("part", ["values", "indices"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("entries", "said"), ENTRIES.values(), ids=ENTRIES)
def test_data_elsewhere_is_refused(tmp_path, place, part, entries, said):
    tensor = sparse()
    data = outside(getattr(tensor, part), **entries)
    path = saved(tmp_path / "model", place(tensor), data)
    (tmp_path / "secret.bin").write_bytes(data)
    (path.parent / "link").symlink_to("../secret.bin")
    with pytest.raises(ModelError, match=said) as error:
        io.read(path)
    assert "\n" not in str(error.value)


def test_data_outside_needs_a_path():
    tensor = sparse()
    outside(tensor.values)
    with pytest.raises(ModelError, match="pass that file's path"):
        io.read(as_initializer(tensor))


def test_more_than_a_file_can_hold_is_refused(tmp_path, monkeypatch):
    tensor = sparse()
    data = outside(tensor.indices)
    path = saved(tmp_path, as_initializer(tensor), data)
    monkeypatch.setattr(reading, "PROTOBUF_LIMIT", len(data) - 1)
    with pytest.raises(ModelError, match="sparse tensors is larger than 2 GiB"):
        io.read(path)


def test_every_sparse_tensor_is_found():
    inner = body([helper.make_node("Constant", [], ["p"], sparse_value=sparse("a"))], ["p"])
    inner.sparse_initializer.append(sparse("b"))
    listed = helper.make_node("Own", ["x"], ["z"], domain="own", all=[sparse("c"), sparse("d")])
    model = build([branch(inner, OK_BODY), listed], ["x", CONDITION])
    model.graph.sparse_initializer.append(sparse("e"))
    model.functions.add(name="F").node.append(listed)
    model.training_info.add().algorithm.sparse_initializer.append(sparse("f"))
    model.graph.node.append(relu("r", "x", "q"))
    found = []
    assert list(tensors(model, found)) == []
    assert sorted(t.name for t in found if t.name) == ["a", "b", "c", "c", "d", "d", "e", "f"]
    assert len(found) == 16
