import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse import io
from onnxfuse.io import encoding, writing
from tests.io.building import CONDITION, RNG, body, branch, build, conv, relu, rich, value

MIB = 1 << 20


@pytest.fixture
def streamed(monkeypatch):
    """Everything is written piece by piece, whatever its size."""
    monkeypatch.setattr(encoding, "_WHOLE", 1)
    monkeypatch.setattr(writing, "_AT_ONCE", 0)


def functions_and_training():
    big = numpy_helper.from_array(RNG.standard_normal(300), "big")
    constant = helper.make_node("Constant", [], ["b"], value=big)
    listed = helper.make_node("Custom", ["a"], ["c"], domain="org.example", all=[big, big])
    model = rich()
    model.functions[0].node.extend([constant, listed])
    model.training_info[0].algorithm.initializer.append(big)
    model.training_info[0].initialization.node.append(constant)
    return model


def bodies():
    weights = [numpy_helper.from_array(RNG.standard_normal((3, 200)), "w")]
    then = body([helper.make_node("Add", ["x", "w"], ["p"])], ["p"], weights)
    return build([branch(then, body([relu("r", "x", "q")], ["q"]))], inputs=["x", CONDITION])


def typed_fields():
    tensors = [
        helper.make_tensor("f", TensorProto.FLOAT, [400], np.arange(400.0)),
        helper.make_tensor("h", TensorProto.FLOAT16, [600], np.arange(600.0)),
        helper.make_tensor("i", TensorProto.INT64, [300], range(300)),
        helper.make_tensor("s", TensorProto.STRING, [2], [b"a", b"\xff"]),
        numpy_helper.from_array(np.zeros((0, 4), np.float32), "none"),
    ]
    return build([relu()], weights=tensors)


MODELS = {
    "conv": conv(),
    "everything": rich(),
    "functions and training": functions_and_training(),
    "bodies": bodies(),
    "typed fields": typed_fields(),
    "no weights": build([relu()]),
    "empty": onnx.ModelProto(),
}


@pytest.mark.parametrize("whole", [1, 600, 2000, MIB])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_bytes_are_those_of_protobuf(model, whole, monkeypatch):
    monkeypatch.setattr(encoding, "_WHOLE", whole)
    expected = model.SerializeToString()
    length, pieces = encoding.encode(model)
    assert b"".join(encoding.content(pieces)) == expected
    assert length == len(expected)
    assert model.SerializeToString() == expected


@pytest.mark.usefixtures("streamed")
def test_text_that_is_not_utf8_is_written_as_it_is(tmp_path):
    model = conv()
    model.doc_string = model.graph.doc_string = model.graph.initializer[0].doc_string = "NOTE"
    path, copy = tmp_path / "a.onnx", tmp_path / "b.onnx"
    path.write_bytes(model.SerializeToString().replace(b"NOTE", b"\xff\xfe\xfd\xfc"))
    io.write(io.read(path), copy)
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("streamed")
def test_a_model_that_was_streamed_is_taken_by_everyone(tmp_path):
    path = tmp_path / "out.onnx"
    io.write(conv(), path)
    assert path.read_bytes() == conv().SerializeToString()
    assert onnx.load(path) == conv()
    onnx.checker.check_model(path, full_check=True)
    x = RNG.standard_normal((1, 8, 7, 5)).astype(np.float32)
    sessions = [
        onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
        for given in (path, conv().SerializeToString())
    ]
    got, expected = (session.run(None, {"x": x}) for session in sessions)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.usefixtures("streamed")
def test_a_model_just_past_the_limit_is_split(tmp_path):
    path = tmp_path / "out.onnx"
    limit = conv().ByteSize()
    for given, split in ((2 * limit, False), (limit - 1, True)):
        io.write(conv(), path, limit=given)
        assert (tmp_path / "out.onnx.data").exists() == split


def wide(count, size):
    weights = [
        numpy_helper.from_array(np.ones(size // 4, np.float32), f"w{i}") for i in range(count)
    ]
    nodes = [helper.make_node("Add", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(count)]
    shape = (size // 4,)
    return build(nodes, [value("t0", shape)], [value(f"t{count}", shape)], weights)


def test_no_more_than_a_few_tensors_are_copied_at_a_time(tmp_path):
    model = wide(20, 4 * MIB)
    tracemalloc.start()
    io.write(model, tmp_path / "out.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 4 * MIB
    assert (tmp_path / "out.onnx").stat().st_size == model.ByteSize()
    assert onnx.load(tmp_path / "out.onnx") == model


PEAK = """
import resource, sys
import onnxfuse
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
start = peak()
onnxfuse.optimize(sys.argv[1]).save(sys.argv[2])
print(peak() - start)
"""


@pytest.mark.slow
def test_optimizing_takes_less_than_three_times_the_file(tmp_path):
    path = tmp_path / "in.onnx"
    path.write_bytes(wide(60, 4 * MIB).SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path, tmp_path / "out.onnx"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(io.__file__).parents[2],
    )
    assert int(done.stdout) < 3 * path.stat().st_size
