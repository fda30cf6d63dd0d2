"""Samples from arrays: how they are cut, grouped and refused."""

import numpy as np
import onnx
import pytest

from onnxfuse import ModelError
from onnxfuse.calibration import read_samples
from onnxfuse.runtime import Input

FLOAT, HALF, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64
IMAGE = Input("image", FLOAT, ("n", 3, 4, 5))
FIXED = Input("image", FLOAT, (2, 3, 4, 5))


def noise(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def test_an_array_is_cut_along_its_leading_axis(tmp_path):
    array = noise(7, 3, 4, 5)
    np.save(tmp_path / "a.npy", array)
    samples = read_samples(tmp_path / "a.npy", [IMAGE])
    assert len(samples) == 7
    for _ in range(2):  # iterating again reads them again
        for number, feeds in enumerate(samples):
            np.testing.assert_array_equal(feeds["image"], array[number : number + 1])


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 3, 4, 5), (1, 1, 3, 4, 5)])
def test_one_sample_in_every_rank(shape):
    (feeds,) = read_samples({"image": noise(*shape)}, [IMAGE])
    assert feeds["image"].shape == (1, 3, 4, 5)


def test_a_fixed_batch_takes_several_and_leaves_out_what_does_not_fill_it():
    array = noise(7, 3, 4, 5)
    samples = read_samples({"image": array}, [FIXED])
    assert len(samples) == 3
    np.testing.assert_array_equal(samples[2]["image"], array[4:6])


def test_single_items_fill_a_fixed_batch():
    array = noise(5, 3, 4, 5)
    samples = read_samples([(image, label) for label, image in enumerate(array)], [FIXED])
    np.testing.assert_array_equal(samples[1]["image"], array[2:4])
    np.testing.assert_array_equal(samples.labels, [0, 1, 2, 3])


def test_refuses_fewer_samples_than_the_fixed_batch():
    with pytest.raises(ModelError, match="1 sample, and the model's batch is fixed at 2"):
        read_samples({"image": noise(1, 3, 4, 5)}, [FIXED])


def test_inputs_fixed_at_different_leading_extents_are_cut_by_them():
    boxes = Input("boxes", FLOAT, (6, 4))
    arrays = {"image": noise(3, 3, 4, 5), "boxes": noise(18, 4)}
    samples = read_samples(arrays, [Input("image", FLOAT, (1, 3, 4, 5)), boxes])
    assert len(samples) == 3
    np.testing.assert_array_equal(samples[1]["boxes"], arrays["boxes"][6:12])


def test_an_array_of_one_sample_serves_all_others():
    scale = Input("scale", FLOAT, (1,))
    arrays = {"image": noise(3, 3, 4, 5), "scale": noise(1)}
    samples = read_samples(arrays, [IMAGE, scale])
    assert [feeds["scale"] for feeds in samples] == [arrays["scale"]] * 3


def test_a_scalar_input_takes_one_number_each():
    samples = read_samples(
        {"image": noise(3, 3, 4, 5), "t": np.arange(3)}, [IMAGE, Input("t", INT64, ())]
    )
    assert [int(feeds["t"]) for feeds in samples] == [0, 1, 2]
    assert samples[0]["t"].shape == ()


def test_the_only_array_that_fits_and_labels(tmp_path):
    arrays = {"pixels": noise(4, 3, 4, 5), "names": np.arange(4.0), "labels": np.arange(4)}
    np.savez(tmp_path / "a.npz", **arrays)
    samples = read_samples(str(tmp_path / "a.npz"), [IMAGE])
    assert len(samples) == 4
    assert samples.labels.dtype == np.int64
    np.testing.assert_array_equal(samples.labels, np.arange(4))


def test_labels_that_are_an_input_are_no_classes(tmp_path):
    np.savez(tmp_path / "a.npz", image=noise(4, 3, 4, 5), y=np.arange(4))
    assert read_samples(tmp_path / "a.npz", [IMAGE, Input("y", INT64, ("n",))]).labels is None


@pytest.mark.parametrize(("given", "wanted"), [(np.float64, FLOAT), (np.float32, HALF)])
def test_floats_become_the_inputs_floats(given, wanted):
    kind = Input("image", wanted, ("n", 3, 4, 5))
    (feeds,) = read_samples({"image": noise(1, 3, 4, 5, dtype=given)}, [kind])
    assert feeds["image"].dtype == kind.dtype


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"other": noise(1, 3, 4, 5)}, "nothing for input 'image'"),
        ({"image": noise(1, 3, 5, 5)}, "is nx3x4x5, the array 1x3x5x5"),
        ({"image": noise(4, 5)}, "is nx3x4x5, the array 4x5"),
        ({"image": noise(1, 3, 4, 5).astype(np.uint8)}, "is float32, the array uint8"),
        ({"image": noise(0, 3, 4, 5)}, "there are no samples"),
        (
            {"image": np.full((1, 3, 4, 5), np.nan, np.float32)},
            "run 0: input 'image' is not finite",
        ),
        ({"image": np.full((1, 3, 4, 5), 1e300)}, "run 0: input 'image' is not finite"),
    ],
)
def test_refuses_arrays_that_do_not_fit(arrays, words):
    with pytest.raises(ModelError, match=words):
        list(read_samples(arrays, [IMAGE]))


def test_refuses_integers_that_the_input_cannot_hold():
    with pytest.raises(ModelError, match="cannot hold"):
        list(read_samples({"i": np.array([[300]])}, [Input("i", onnx.TensorProto.UINT8, ("n", 1))]))


def test_refuses_different_numbers_of_samples():
    with pytest.raises(ModelError, match="3 samples for input 'scale', 4 for another"):
        read_samples(
            {"image": noise(4, 3, 4, 5), "scale": noise(3, 1)},
            [IMAGE, Input("scale", FLOAT, ("n", 1))],
        )


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": noise(1, 3, 4, 5), "b": noise(1, 3, 4, 5)}, "2 arrays fit input 'image'"),
        ({"a": noise(2, 2)}, "no array fits input 'image'; in it: a float32 2x2"),
        ({"image": noise(4, 3, 4, 5), "y": np.arange(3)}, "3 labels for 4 samples"),
        ({"image": noise(4, 3, 4, 5), "y": np.arange(4.0)}, "labels are integers from 0"),
        ({"image": noise(2, 3, 4, 5), "y": np.array([0, -1])}, "labels are integers from 0"),
    ],
)
def test_refuses_archives_that_do_not_fit(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ModelError, match=words):
        read_samples(tmp_path / "a.npz", [IMAGE])


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"no arrays", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_refuses_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: "):
        read_samples(tmp_path / name, [IMAGE])


def test_refuses_an_npz_that_is_named_npy(tmp_path):
    np.savez(tmp_path / "a.npz", image=noise(1, 3, 4, 5))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(ModelError, match=r"not an \.npy but an \.npz"):
        read_samples(tmp_path / "a.npy", [IMAGE])


def test_refuses_an_npy_for_several_inputs(tmp_path):
    np.save(tmp_path / "a.npy", noise(1, 3, 4, 5))
    with pytest.raises(ModelError, match="for a model with one input, and this one has 2"):
        read_samples(tmp_path / "a.npy", [IMAGE, Input("t", INT64, ())])


def test_refuses_a_model_without_inputs():
    with pytest.raises(ModelError, match="takes no inputs"):
        read_samples({}, [])


@pytest.mark.parametrize("data", ["nowhere.npz", "nowhere", "x.txt", 7])
def test_refuses_what_is_not_there(data):
    with pytest.raises(ModelError, match=r"nowhere|x\.txt|not a int"):
        read_samples(data, [IMAGE])
