"""Images and folders."""

import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from onnxfuse import ModelError, Pixels
from onnxfuse.calibration import read_samples
from onnxfuse.runtime import Input

FLOAT, BYTES = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
FIRST = Input("x", FLOAT, ("n", 3, 4, 6))
LAST = Input("x", FLOAT, (1, 4, 6, 3))
RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(seed=0, size=(4, 6)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path, array):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(array).save(path)


def test_pixels_of_an_image_of_the_right_size(tmp_path):
    array = picture()
    save(tmp_path / "a.png", array)
    (feeds,) = read_samples(tmp_path, [FIRST])
    expected = np.stack([array[:, :, channel] / 255 for channel in range(3)])[None]
    np.testing.assert_allclose(feeds["x"], expected, rtol=1e-7)  # one rounding to float32
    assert feeds["x"].dtype == np.float32


def test_channels_last(tmp_path):
    array = picture()
    save(tmp_path / "a.png", array)
    (feeds,) = read_samples(tmp_path, [LAST])
    np.testing.assert_allclose(feeds["x"][0], array / 255, rtol=1e-7)


def test_mean_std_and_blue_first(tmp_path):
    array = picture()
    save(tmp_path / "a.bmp", array)
    pixels = Pixels(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), bgr=True)
    (feeds,) = read_samples(tmp_path / "a.bmp", [FIRST], pixels=pixels)
    blue = (array[:, :, 2] / 255 - 0.1) / 0.5  # mean and std go with what the network sees first
    np.testing.assert_allclose(feeds["x"][0, 0], blue, rtol=1e-6, atol=1e-7)


def test_bytes_stay_as_they_are(tmp_path):
    array = picture()
    save(tmp_path / "a.png", array)
    (feeds,) = read_samples(tmp_path, [Input("x", BYTES, ("n", 3, 4, 6))])
    np.testing.assert_array_equal(feeds["x"][0], array.transpose(2, 0, 1))


def test_one_channel_is_grey(tmp_path):
    save(tmp_path / "a.png", np.full((4, 6, 3), 51, np.uint8))
    (feeds,) = read_samples(tmp_path, [Input("x", FLOAT, ("n", 1, 4, 6))])
    np.testing.assert_allclose(feeds["x"], np.full((1, 1, 4, 6), 0.2), rtol=1e-6)


def test_resized_to_symbolic_extents(tmp_path):
    array = np.zeros((20, 40, 3), np.uint8)
    array[:10] = RED
    save(tmp_path / "a.png", array)
    given = Input("x", FLOAT, ("n", 3, "height", "width"))
    (feeds,) = read_samples(tmp_path, [given], sizes={"height": 4, "width": 6})
    assert feeds["x"].shape == (1, 3, 4, 6)
    np.testing.assert_allclose(feeds["x"][0, 0, 0], np.ones(6), atol=1e-6)
    np.testing.assert_allclose(feeds["x"][0, 0, -1], np.zeros(6), atol=1e-6)


def test_classes_are_folders_in_order(tmp_path):
    for label, name in enumerate(["ant", "bee", "cat"]):
        for index in range(2):
            save(tmp_path / name / f"{index}.png", np.full((4, 6, 3), 50 * label, np.uint8))
    (tmp_path / "bee" / "notes.txt").write_text("passed over")
    samples = read_samples(tmp_path, [FIRST])
    np.testing.assert_array_equal(samples.labels, [0, 0, 1, 1, 2, 2])
    found = [round(255 * float(feeds["x"][0, 0, 0, 0])) for feeds in samples]
    assert found == [0, 0, 50, 50, 100, 100]


def test_images_are_read_when_they_are_asked_for(tmp_path):
    for index in range(3):
        save(tmp_path / f"{index}.png", picture(index))
    samples = read_samples(tmp_path, [FIRST])
    (tmp_path / "1.png").write_bytes(b"damaged")
    assert len(samples) == 3
    assert samples[2]["x"].shape == (1, 3, 4, 6)
    with pytest.raises(ModelError, match=r"1\.png: not an image"):
        samples[1]


def test_a_folder_of_arrays(tmp_path):
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.full((3, 4, 6), index, np.float32))
    assert [int(feeds["x"].max()) for feeds in read_samples(tmp_path, [FIRST])] == [0, 1, 2]


def test_a_folder_of_test_data(tmp_path):
    for index in range(2):
        folder = tmp_path / f"test_data_set_{index}"
        folder.mkdir()
        tensor = numpy_helper.from_array(np.full((2, 3, 4, 6), index, np.float32))
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    samples = read_samples(tmp_path, [FIRST])
    assert [feeds["x"].shape[0] for feeds in samples] == [2, 2]
    assert int(samples[1]["x"].max()) == 1


def test_test_data_is_read_run_by_run(tmp_path):
    """So that thousands of them need no more memory than one."""
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "input_0.pb").write_bytes(b"not a tensor")
    samples = read_samples(tmp_path, [FIRST])
    tensor = numpy_helper.from_array(np.ones((1, 3, 4, 6), np.float32))
    (tmp_path / "0" / "input_0.pb").write_bytes(tensor.SerializeToString())
    assert len(samples) == 2
    assert samples[0]["x"].shape == (1, 3, 4, 6)
    with pytest.raises(ModelError, match="not a tensor of ONNX test data"):
        samples[1]


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (Input("x", FLOAT, ("n", 3, "h", 6)), {}, "'h' of input 'x' is not fixed"),
        (Input("x", FLOAT, ("n", 3, "h", 6)), {"sizes": {"h": 0}}, "an extent of 0"),
        (FIRST, {"sizes": {"h": 4}}, "no input has a symbolic dimension 'h'"),
        (Input("x", FLOAT, ("n", 8, 4, 6)), {}, "takes float32 nx8x4x6, no images"),
        (Input("x", FLOAT, ("n", 10)), {}, "takes float32 nx10, no images"),
        (Input("x", onnx.TensorProto.INT64, ("n", 3, 4, 6)), {}, "takes int64"),
        (Input("x", FLOAT, None), {}, "no images"),
        (FIRST, {"pixels": Pixels(mean=(1.0, 2.0))}, "2 values of mean for 3 channels"),
        (FIRST, {"pixels": Pixels(std=(0.0,))}, "std cannot be 0.0"),
        (Input("x", BYTES, ("n", 3, 4, 6)), {"pixels": Pixels(std=(0.5,))}, "no mean, no std"),
        (Input("x", FLOAT, ("n", 1, 4, 6)), {"pixels": Pixels(bgr=True)}, "no blue"),
    ],
)
def test_refuses_images_for_what_takes_none(tmp_path, given, options, words):
    save(tmp_path / "a.png", picture())
    with pytest.raises(ModelError, match=words):
        read_samples(tmp_path, [given], **options)


def test_refuses_sixteen_bits(tmp_path):
    Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ModelError, match="more than 8 bits a channel"):
        read_samples(tmp_path, [FIRST])[0]


def test_refuses_an_empty_folder(tmp_path):
    (tmp_path / "class").mkdir()
    with pytest.raises(ModelError, match=r"no images, \.npy files or ONNX test data in it"):
        read_samples(tmp_path, [FIRST])


def test_refuses_images_beside_arrays(tmp_path):
    save(tmp_path / "a.png", picture())
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 6)))
    with pytest.raises(ModelError, match="which are the samples"):
        read_samples(tmp_path, [FIRST])


def test_refuses_images_beside_folders_of_them(tmp_path):
    save(tmp_path / "cat" / "a.png", picture())
    save(tmp_path / "thumbnail.png", picture())
    with pytest.raises(ModelError, match=r"thumbnail\.png, and in folders in it, such as cat"):
        read_samples(tmp_path, [FIRST])


@pytest.mark.filterwarnings("error")
def test_warns_of_nothing(tmp_path):
    """Pillow would, of transparency in a palette."""
    image = Image.fromarray(picture()).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert read_samples(tmp_path, [FIRST])[0]["x"].shape == (1, 3, 4, 6)


def test_refuses_several_samples_in_a_file_of_a_folder(tmp_path):
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4, 6)))
    with pytest.raises(ModelError, match="2 samples: in a folder each file holds one"):
        read_samples(tmp_path, [FIRST])[0]


def test_says_what_is_missing(tmp_path, monkeypatch):
    save(tmp_path / "a.png", picture())
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ModelError, match=r"pip install 'onnxfuse\[images\]'"):
        read_samples(tmp_path, [FIRST])
