import os

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse import io
from tests.io.building import (
    BIAS,
    CONDITION,
    FLOAT,
    KERNEL,
    RNG,
    body,
    branch,
    build,
    conv,
    external,
    rich,
    run,
    unknown_field,
    value,
)


def test_external_data_follows_the_model_to_another_folder(tmp_path):
    path = external(conv(), tmp_path / "here")
    x = RNG.standard_normal((1, 8, 7, 5)).astype(np.float32)
    expected = run(path, x)
    there = tmp_path / "there"
    there.mkdir()
    io.write(io.read(path), there / "out.onnx")
    for file in path.parent.iterdir():
        file.unlink()
    assert sorted(os.listdir(there)) == ["out.onnx", "out.onnx.data"]
    np.testing.assert_array_equal(run(there / "out.onnx", x), expected)
    source = io.read(there / "out.onnx")
    assert source.model.graph.initializer[1].raw_data == BIAS.tobytes()


def test_external_data_that_is_no_longer_needed_makes_no_file(tmp_path):
    source = io.read(external(conv(), tmp_path / "here"))
    source.model.graph.initializer[0].CopyFrom(numpy_helper.from_array(BIAS, "w"))
    io.write(source, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx.data").exists()


def weightless(model):
    for tensor in model.graph.initializer:
        for field in ("raw_data", "float_data", "external_data", "data_location"):
            tensor.ClearField(field)
    return model


def test_a_model_past_the_limit_is_split_and_nothing_is_lost(tmp_path):
    model = rich()
    content = model.SerializeToString()
    io.write(model, tmp_path / "out.onnx", limit=2000)
    assert model.SerializeToString() == content
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    (kernel, bias) = written.graph.initializer
    assert {e.key: e.value for e in kernel.external_data} == {
        "location": "out.onnx.data",
        "offset": "0",
        "length": str(KERNEL.nbytes),
    }
    assert bias.raw_data == BIAS.tobytes()
    loaded = onnx.load(tmp_path / "out.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), KERNEL)
    expected = weightless(rich())
    for field in onnx.ModelProto.DESCRIPTOR.fields:
        if field.name != "graph":
            assert getattr(loaded, field.name) == getattr(expected, field.name), field.name
    weightless(loaded)
    for field in onnx.GraphProto.DESCRIPTOR.fields:
        assert getattr(loaded.graph, field.name) == getattr(expected.graph, field.name), field.name
    unknown = unknown_field(1000, b"from the future")
    assert loaded.SerializeToString().count(unknown) == 4
    assert sorted(loaded.SerializeToString()) == sorted(expected.SerializeToString())


def test_weights_in_typed_fields_attributes_and_bodies_are_split_off(tmp_path):
    four = (np.arange(3000) % 1999).reshape(3, 1000)
    constant = helper.make_node(
        "Constant", [], ["k"], value=helper.make_tensor("", FLOAT, [3, 1000], four.ravel())
    )
    half = helper.make_tensor("h", TensorProto.FLOAT16, [3, 1000], four.ravel().astype(np.float16))
    inner = body(
        [helper.make_node("Add", ["k", "d"], ["q"])],
        ["q"],
        [helper.make_tensor("d", FLOAT, [3, 1000], four.ravel())],
    )
    other = body([helper.make_node("Cast", ["h"], ["t"], to=FLOAT)], ["t"])
    model = build([constant, branch(inner, other)], inputs=[CONDITION], weights=[half])
    io.write(model, tmp_path / "out.onnx", limit=1000)
    assert (tmp_path / "out.onnx").stat().st_size < 1000
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    for choice, factor in ((True, 2), (False, 1)):
        (result,) = session.run(None, {"c": np.array(choice)})
        np.testing.assert_array_equal(result, factor * four.astype(np.float16).astype(np.float32))


@pytest.mark.slow
def test_a_model_of_more_than_2_gib(tmp_path):
    kernels = 5
    size = 1 << 29
    model = build(
        [helper.make_node("Add", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(kernels)],
        inputs=[value("t0", (1,))],
        outputs=[value(f"t{kernels}", (size // 4,))],
        weights=[
            TensorProto(name=f"w{i}", data_type=FLOAT, dims=[size // 4]) for i in range(kernels)
        ],
    )
    for index, tensor in enumerate(model.graph.initializer):
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in {"location": "d", "offset": index * size, "length": size}.items():
            tensor.external_data.add(key=key, value=str(entry))
    with open(tmp_path / "d", "wb") as file:
        file.truncate(kernels * size)  # a hole: takes no space
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "out").mkdir()
    io.write(io.read(path), tmp_path / "out" / "out.onnx")
    assert (tmp_path / "out" / "out.onnx.data").stat().st_size == kernels * size
    onnx.checker.check_model(tmp_path / "out" / "out.onnx")
