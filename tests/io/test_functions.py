"""External data in the defaults of a function's attributes: files of the model like any others."""

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import onnxfuse
from onnxfuse import io
from onnxfuse.cli import main
from onnxfuse.errors import ModelError
from tests.io.building import FLOAT, RNG, build, run, value

SCALE = RNG.standard_normal((1, 8, 40, 1)).astype(np.float32)  # 1280 bytes


def function():
    """b = a * scale, where a call may give another scale."""
    tensor = TensorProto(name="scale", data_type=FLOAT, dims=SCALE.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in (("location", "ext.bin"), ("offset", "64"), ("length", str(SCALE.nbytes))):
        tensor.external_data.add(key=key, value=entry)
    constant = helper.make_node("Constant", [], ["k"])
    constant.attribute.add(name="value", type=AttributeProto.TENSOR, ref_attr_name="scale")
    nodes = [constant, helper.make_node("Mul", ["a", "k"], ["b"])]
    default = helper.make_attribute("scale", tensor)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_function("own", "Scaled", ["a"], ["b"], nodes, imports, [], [default])


@pytest.fixture
def path(tmp_path):
    """A model whose one weight is the default of a function's attribute, in another file."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "ext.bin").write_bytes(bytes(64) + SCALE.tobytes())
    shape = (1, 8, 40, 6)
    model = build(
        [helper.make_node("Scaled", ["x"], ["y"], domain="own")],
        [value("x", shape)],
        [value("y", shape)],
        imports=[helper.make_opsetid("own", 1)],
    )
    model.functions.append(function())
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def point_to(path, location):
    model = onnx.load(path, load_external_data=False)
    model.functions[0].attribute_proto[0].t.external_data[0].value = str(location)
    path.write_bytes(model.SerializeToString())


def test_its_file_is_one_of_the_models(path):
    source = io.read(path)
    assert source.external
    assert source.files == {path, path.with_name("ext.bin")}
    (tensor,) = (d.t for d in source.model.functions[0].attribute_proto)
    np.testing.assert_array_equal(source.load(tensor), SCALE)


def test_its_file_is_not_replaced(path, monkeypatch, capfd):
    monkeypatch.chdir(path.parent)
    before = (path.parent / "ext.bin").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main.main(args=["inspect", "net.onnx", "--json", "ext.bin"], prog_name="onnxfuse")
    said = "onnxfuse: ext.bin is an input file: it will not be replaced\n"
    assert (stop.value.code, *capfd.readouterr()) == (2, "", said)
    assert (path.parent / "ext.bin").read_bytes() == before


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../secret", "outside the model's folder"),
        ("{folder}/ext.bin", "not a relative path"),
        ("hard", "hard link"),
        ("gone.bin", "cannot be read"),
    ],
)
def test_refuses_data_that_is_not_in_the_folder(path, location, said):
    secret = path.parent.parent / "secret"
    secret.write_bytes(bytes(10_000))
    (path.parent / "hard").hardlink_to(secret)
    point_to(path, location.format(folder=path.parent))
    with pytest.raises(ModelError, match=f"tensor 'scale' keeps its data in.*{said}"):
        io.read(path)


def test_its_data_goes_with_the_model(path, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    onnxfuse.optimize(path).save(elsewhere / "out.onnx")
    (path.parent / "ext.bin").unlink()
    assert sorted(p.name for p in elsewhere.iterdir()) == ["out.onnx", "out.onnx.data"]
    x = RNG.standard_normal((1, 8, 40, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(elsewhere / "out.onnx", x), x * SCALE)


def test_small_ones_come_into_the_model(path):
    model = onnx.load(path, load_external_data=False)
    tensor = model.functions[0].attribute_proto[0].t
    tensor.dims[:] = [1, 8, 1, 1]
    tensor.external_data[2].value = "32"
    path.write_bytes(model.SerializeToString())
    held = io.read(path).model.functions[0].attribute_proto[0].t
    assert held.data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(numpy_helper.to_array(held).ravel(), SCALE.ravel()[:8])
