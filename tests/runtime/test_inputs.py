"""Sizes, values and files that models are given."""

import numpy as np
import pytest
from onnx import SequenceProto, TensorProto, numpy_helper

from onnxfuse import ModelError
from onnxfuse.runtime import Input, make_feeds, parse_sizes, read_inputs, size_choices
from onnxfuse.runtime.feeds import KINDS
from onnxfuse.runtime.sizes import check_sizes

FLOAT, INT64, UINT8, STRING, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.STRING,
    TensorProto.BOOL,
)
IMAGE = Input("image", FLOAT, ("batch", 3, "height", "width"))


def test_sizes_as_users_write_them():
    assert parse_sizes(["batch=2", "a=3,x:2=5"]) == {"batch": 2, "a": 3, "x:2": 5}
    for text in ("a", "a=", "a=-1", "=3", "a=1.5"):
        with pytest.raises(ModelError, match="NAME=EXTENT"):
            parse_sizes([text])


def test_choices_differ_in_every_dimension_and_honour_what_is_given():
    choices = list(size_choices([IMAGE], {"width": 50}))
    assert len(choices) > 3
    assert {choice["width"] for choice in choices} == {50}
    assert len({choice["height"] for choice in choices}) > 3
    assert {choice["batch"] for choice in choices} == {1, 2, 3}
    assert any(choice["height"] % 32 for choice in choices)
    first = next(size_choices([IMAGE], {}, first=(224,)))
    assert first == {"batch": 1, "height": 224, "width": 224}


def test_one_choice_where_nothing_is_open():
    assert list(size_choices([Input("x", FLOAT, (2, 3))], {})) == [{}]


def test_a_dimension_that_two_inputs_share_has_one_size():
    other = Input("mask", BOOL, ("batch", "height"))
    for choice in size_choices([IMAGE, other], {}):
        feeds = make_feeds([IMAGE, other], choice)
        assert feeds["mask"].shape == (feeds["image"].shape[0], feeds["image"].shape[2])


def test_unknown_dimensions_are_named():
    with pytest.raises(ModelError, match="'depth': there are batch, height, width"):
        check_sizes([IMAGE], {"depth": 3})
    with pytest.raises(ModelError, match="'n': all are fixed"):
        check_sizes([Input("x", FLOAT, (2,))], {"n": 3})


@pytest.mark.parametrize("kind", KINDS)
def test_values_have_their_type_and_repeat(kind):
    inputs = [
        IMAGE,
        Input("ids", INT64, ("batch", 7)),
        Input("bytes", UINT8, (2, 50)),
        Input("words", STRING, (3,)),
        Input("flags", BOOL, (9,)),
        Input("half", TensorProto.FLOAT16, (2, 40)),
        Input("scalar", FLOAT, ()),
        Input("unknown", FLOAT, None),
    ]
    sizes = {"batch": 2, "height": 5, "width": 6}
    one, two = (make_feeds(inputs, sizes, kind, seed=3) for _ in range(2))
    for given in inputs:
        value = one[given.name]
        assert isinstance(value, np.ndarray)
        assert value.dtype == given.dtype
        np.testing.assert_array_equal(value, two[given.name])
    assert one["image"].shape == (2, 3, 5, 6)
    assert one["ids"].min() >= 0
    assert np.isfinite(one["half"]).all()
    if kind == "zeros":
        assert not one["image"].any()
    if kind in ("constant", "zeros"):
        assert len(np.unique(one["image"])) == 1
    if kind in ("large", "tiny"):
        size = np.abs(one["image"]).mean()
        assert 1e3 < size < 1e5 if kind == "large" else 1e-5 < size < 1e-3


def test_other_seeds_give_other_noise():
    sizes = {"batch": 1, "height": 4, "width": 4}
    one, two = (make_feeds([IMAGE], sizes, seed=seed)["image"] for seed in (0, 1))
    assert (one != two).any()


def test_an_input_that_is_no_tensor_is_asked_for():
    with pytest.raises(ModelError, match="'list' is no tensor"):
        make_feeds([Input("list", 0, None)], {})


def test_npz_by_name_and_by_order(tmp_path):
    inputs = [Input("a", FLOAT, ("n", 2)), Input("b", INT64, (3,))]
    a, b = np.ones((4, 2), np.float32), np.arange(3)
    np.savez(tmp_path / "named.npz", b=b, a=a, more=np.zeros(1))
    np.savez(tmp_path / "ordered.npz", a, b)
    for name in ("named", "ordered"):
        (recorded,) = read_inputs(tmp_path / f"{name}.npz", inputs)
        np.testing.assert_array_equal(recorded.feeds["a"], a)
        np.testing.assert_array_equal(recorded.feeds["b"], b)


def test_strings_in_an_npz(tmp_path):
    np.savez(tmp_path / "words.npz", words=np.array(["a", "bc"]))
    (recorded,) = read_inputs(tmp_path / "words.npz", [Input("words", STRING, (2,))])
    assert recorded.feeds["words"].dtype == object


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"b": np.ones(2, np.float32)}, "nothing for input 'a'"),
        ({"a": np.ones((1, 2))}, "is float32, the file has float64"),
        ({"a": np.ones((1, 3), np.float32)}, "is nx2, the file has 1x3"),
        ({"a": np.ones(2, np.float32)}, "is nx2, the file has 2"),
        ({"a": np.array([{}], object)}, "not an .npz of plain arrays"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, arrays, message):
    path = tmp_path / "inputs.npz"
    np.savez(path, **arrays, more=np.zeros(1))
    with pytest.raises(ModelError, match=message):
        read_inputs(path, [Input("a", FLOAT, ("n", 2))])


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "inputs.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ModelError, match=r"not an .npz"):
        read_inputs(path, [])
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ModelError, match="a single array"):
        read_inputs(tmp_path / "one.npy", [])


def test_folders_of_onnx_test_data(tmp_path):
    inputs = [Input("a", FLOAT, (2,)), Input("list", 0, None)]
    for number in range(2):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        array = np.full(2, number, np.float32)
        sequence = numpy_helper.from_list([array, array])
        (folder / "input_0.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
        (folder / "input_1.pb").write_bytes(sequence.SerializeToString())
        (folder / "output_0.pb").write_bytes(b"")
    found = read_inputs(tmp_path, inputs)
    assert [recorded.feeds["a"][0] for recorded in found] == [0, 1]
    assert len(found[1].feeds["list"]) == 2
    (tmp_path / "test_data_set_1" / "input_1.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ModelError, match=r"input_1.pb: not a sequence"):
        read_inputs(tmp_path, inputs)
    assert SequenceProto().name == ""
