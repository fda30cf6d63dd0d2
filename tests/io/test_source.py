import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse import io
from onnxfuse.errors import ModelError
from tests.io.building import (
    BIAS,
    KERNEL,
    RNG,
    build,
    conv,
    external,
    point_to,
    relu,
)


def test_external_data_is_mapped_and_small_tensors_are_brought_in(tmp_path):
    source = io.read(external(conv(), tmp_path))
    kernel, bias = source.model.graph.initializer
    assert source.external
    assert kernel.data_location == TensorProto.EXTERNAL
    loaded = source.load(kernel)
    np.testing.assert_array_equal(loaded, KERNEL)
    assert not loaded.flags.owndata
    assert not loaded.flags.writeable
    assert bias.data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(source.load(bias), BIAS)
    assert source.files == {tmp_path / "net.onnx", tmp_path / "net.bin"}


@pytest.mark.parametrize("name", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "BOOL", "INT64"])
def test_every_element_type_comes_in_from_outside(tmp_path, name):
    elem_type = getattr(TensorProto, name)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    expected = RNG.integers(0, 2, (3, 1111)).astype(dtype)
    model = build([relu()], weights=[numpy_helper.from_array(expected, "w")])
    source = io.read(external(model, tmp_path))
    loaded = source.load(source.model.graph.initializer[0])
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded.astype(np.float32), expected.astype(np.float32))
    io.write(source, tmp_path / "out.onnx")
    again = onnx.load(tmp_path / "out.onnx").graph.initializer[0]
    assert again.raw_data == numpy_helper.from_array(expected).raw_data


def test_embed_brings_everything_in(tmp_path):
    source = io.read(external(conv(), tmp_path))
    source.embed()
    assert source.model == conv()


def test_an_unaligned_tensor_is_loaded_aligned(tmp_path):
    path = external(conv(), tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[1].value = "65"
    path.write_bytes(model.SerializeToString())
    source = io.read(path)
    assert source.load(source.model.graph.initializer[0]).flags.aligned


@pytest.mark.parametrize("location", ["../net.bin", "sub/../../net.bin", "{folder}/net.bin", ""])
def test_refuses_external_data_outside_the_folder(tmp_path, location):
    path = external(conv(), tmp_path / "model")
    (tmp_path / "model" / "sub").mkdir()
    (tmp_path / "net.bin").write_bytes((tmp_path / "model" / "net.bin").read_bytes())
    point_to(path, location=location.format(folder=path.parent))
    with pytest.raises(ModelError, match="tensor 'w' keeps its data in"):
        io.read(path)


@pytest.mark.parametrize("kind", ["symlink", "hard link", "symlinked folder"])
def test_refuses_links_out_of_the_folder(tmp_path, kind):
    path = external(conv(), tmp_path / "model")
    data = path.with_name("net.bin")
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    data.rename(outside / "net.bin")
    if kind == "symlink":
        data.symlink_to(outside / "net.bin")
    elif kind == "hard link":
        data.hardlink_to(outside / "net.bin")
    else:
        (path.parent / "sub").symlink_to(outside)
        point_to(path, location="sub/net.bin")
    with pytest.raises(ModelError, match=r"outside the model's folder|hard link"):
        io.read(path)


def test_takes_links_within_the_folder_and_subfolders(tmp_path):
    path = external(conv(), tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "net.bin").rename(tmp_path / "sub" / "real.bin")
    (tmp_path / "net.bin").symlink_to("sub/real.bin")
    source = io.read(path)
    np.testing.assert_array_equal(source.load(source.model.graph.initializer[0]), KERNEL)


def test_takes_a_download_cache_in_which_both_files_are_links(tmp_path):
    path = external(conv(), tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("net.onnx", "net.bin"):
        (snapshot / name).symlink_to(Path("..") / "blobs" / name)
    source = io.read(snapshot / path.name)
    np.testing.assert_array_equal(source.load(source.model.graph.initializer[0]), KERNEL)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": -4},
        {"offset": 10**9},
        {"offset": "four"},
        {"length": 8},
        {"length": 10**12},
        {"location": "nothing.bin"},
        {"location": "."},
    ],
    ids=str,
)
def test_refuses_external_data_that_is_not_there(tmp_path, entries):
    path = external(conv(), tmp_path)
    point_to(path, **entries)
    with pytest.raises(ModelError, match="tensor 'w'") as error:
        io.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("offset", [" 1_0 ", "1e3", "\u0663", "0x10", "+4", "9" * 100])
def test_refuses_an_offset_that_is_not_written_in_digits(tmp_path, offset):
    path = external(conv(), tmp_path)
    point_to(path, offset=offset)
    with pytest.raises(ModelError, match="is no number of bytes"):
        io.read(path)


@pytest.mark.parametrize("key", ["location", "offset"])
def test_refuses_what_is_said_twice(tmp_path, key):
    path = external(conv(), tmp_path)
    model = onnx.load(path, load_external_data=False)
    entries = model.graph.initializer[0].external_data
    entries.append(next(entry for entry in entries if entry.key == key))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w' says twice where its data is"):
        io.read(path)


def test_external_data_needs_a_path(tmp_path):
    model = onnx.load(external(conv(), tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match="pass that file's path"):
        io.read(model)
    with pytest.raises(ModelError, match="pass that file's path"):
        io.write(model, tmp_path / "out.onnx")
    assert sorted(os.listdir(tmp_path)) == ["net.bin", "net.onnx"]
