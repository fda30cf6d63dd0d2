"""Inputs files that are damaged, or that speak of other files: one error, whatever is wrong."""

import io
import struct
import zipfile

import numpy as np
import pytest
from onnx import SequenceProto, TensorProto, numpy_helper

from onnxfuse import ModelError
from onnxfuse.runtime import Input, read_inputs

ARRAY = np.arange(4096, dtype=np.float32)
X = Input("x", TensorProto.FLOAT, ("n",))


def archive(content, name="x.npy", method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr(name, content)
    return file.getvalue()


def npy(header=None, data=bytes(64)):
    """An array as numpy.save writes it, or with another header in front of other data."""
    if header is None:
        np.save(file := io.BytesIO(), ARRAY)
        return file.getvalue()
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def shaped(shape):
    return npy(repr({"descr": "<f4", "fortran_order": False, "shape": shape}))


def marked(offset, value):
    """The archive with a number of its entry changed, in front of the content and in the list."""
    data = bytearray(archive(npy()))
    for start in (4, data.index(b"PK\x01\x02") + 6):  # both begin with the version needed
        struct.pack_into("<H", data, start + offset, value)
    return bytes(data)


def cut_stream(method=zipfile.ZIP_DEFLATED):
    data = bytearray(archive(npy(), method=method))
    data[60:80] = b"\xff" * 20
    return bytes(data)


DAMAGED = {
    "a packed stream gone wrong": cut_stream(),
    "another packed stream gone wrong": cut_stream(zipfile.ZIP_LZMA),
    "a type without a name": archive(npy("{'descr': (), 'fortran_order': False, 'shape': (4,)}")),
    "an entry that is encrypted": marked(2, 1),
    "an unknown way of packing": marked(4, 99),
    "a header cut short": archive(npy()[:20]),
    "nothing but the magic": archive(npy()[:6]),
    "a header that is no Python": archive(npy("{'descr': '<f4', (")),
    "a header that is no dict": archive(npy("7")),
    "a header of brackets": archive(npy("(" * 3000)),
    "a type that is none": archive(npy("{'descr': '<q9', 'fortran_order': False, 'shape': (1,)}")),
    "a shape of 10^23": archive(shaped((10**23,))),
    "a shape of truths": archive(shaped((True, True))),
    "a shape of 10^12 in 64 bytes": archive(shaped((10**12,))),
    "something that is no array": archive(b"some words", "x.txt"),
    "words in place of an array": archive(b"some words"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_told(tmp_path, content):
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_inputs(path, [X])
    assert str(error.value) == f"{path}: not an .npz of plain arrays, as numpy.savez writes it"


def test_the_archive_that_was_damaged_is_read(tmp_path):
    (tmp_path / "inputs.npz").write_bytes(archive(npy()))
    (recorded,) = read_inputs(tmp_path / "inputs.npz", [X])
    np.testing.assert_array_equal(recorded.feeds["x"], ARRAY)


def elsewhere():
    """A tensor whose data is in a file that is there."""
    tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="input_1.bin")
    return tensor


@pytest.mark.parametrize("kept", [b"", bytes(16)], ids=["no data", "data of its own"])
def test_a_tensor_in_another_file_is_not_read(tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input_1.bin").write_bytes(bytes(16))
    tensor = elsewhere()
    tensor.raw_data = kept
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(ModelError, match=r"input_0.pb: not a tensor .*: its data is in another"):
        read_inputs(tmp_path, [X])


def test_a_sequence_with_a_tensor_in_another_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input_1.bin").write_bytes(bytes(16))
    sequence = SequenceProto(elem_type=SequenceProto.TENSOR)
    sequence.tensor_values.extend([numpy_helper.from_array(ARRAY), elsewhere()])
    (tmp_path / "input_0.pb").write_bytes(sequence.SerializeToString())
    with pytest.raises(ModelError, match=r"input_0.pb: not a sequence .*: its data is in another"):
        read_inputs(tmp_path, [Input("list", 0, None)])
