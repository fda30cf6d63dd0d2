"""Samples from Python."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from onnxfuse import ModelError
from onnxfuse.calibration import read_samples
from onnxfuse.runtime import Input

X = Input("x", onnx.TensorProto.FLOAT, ("n", 2))
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


class Lazy:
    """A sequence that counts what it has been asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 3

    def __getitem__(self, number):
        self.asked.append(number)
        return {"x": ROWS[2 * number : 2 * number + 2]}, [number, number]


def rows(samples):
    return np.concatenate([feeds["x"] for feeds in samples])


@pytest.mark.parametrize(
    "data",
    [
        list(ROWS),
        [{"x": ROWS}],
        (ROWS[i : i + 2] for i in range(0, 6, 2)),
        lambda: iter(ROWS),
        [{"x": row} for row in ROWS],
        ROWS,
    ],
    ids=["arrays", "a dict", "a generator of batches", "a function", "dicts", "an array"],
)
def test_items_in_every_form(data):
    samples = read_samples(data, [X])
    assert len(samples) == 6
    for _ in range(2):
        np.testing.assert_array_equal(rows(samples), ROWS)
    assert all(feeds["x"].shape == (1, 2) for feeds in samples)


def test_a_sequence_is_asked_again_and_nothing_is_held():
    lazy = Lazy()
    samples = read_samples(lazy, [X])
    assert lazy.asked == [0, 1, 2]
    np.testing.assert_array_equal(samples.labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(samples[3]["x"], ROWS[3:4])
    assert lazy.asked == [0, 1, 2, 1]


def test_a_factory_may_give_a_sequence_that_cannot_be_iterated():
    """As datasets of PyTorch are: a length and items."""
    lazy = Lazy()
    samples = read_samples(lambda: lazy, [X])
    np.testing.assert_array_equal(rows(samples), ROWS)


def test_a_factory_in_a_file(tmp_path):
    (tmp_path / "given.py").write_text(
        "import numpy as np\ndef samples():\n    for i in range(4):\n"
        "        yield {'x': np.full(2, i, 'f')}, i % 2\n"
    )
    samples = read_samples(f"{tmp_path / 'given.py'}:samples", [X])
    np.testing.assert_array_equal(samples.labels, [0, 1, 0, 1])
    assert float(samples[3]["x"][0, 1]) == 3


def test_a_factory_is_loaded_without_torch(tmp_path):
    (tmp_path / "given.py").write_text("samples = [{'x': [1.0]}, {'x': [2.0]}]\n")
    code = (
        "import sys; sys.modules['torch'] = None; import onnx; from onnxfuse.runtime import Input; "
        "from onnxfuse.calibration import read_samples; import numpy as np; "
        "x = Input('x', onnx.TensorProto.FLOAT, ('n', 1)); "
        f"read_samples({str(tmp_path / 'given.py')!r} + ':samples', [x])"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def fails():
    yield ROWS[0]
    raise ValueError("no more")


class Elsewhere:
    """A tensor that numpy cannot read, such as one that needs a gradient or is on a GPU."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("use tensor.detach().numpy()")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "there are no samples in it"),
        (fails, "ValueError: no more"),
        (lambda: 7, "gives a int, not samples"),
        ([(ROWS[0], 1), ROWS[1]], "1 labels for 2 samples"),
        ([(ROWS[0], 1, 2)], "item 0 has 3 parts"),
        ([(ROWS[:2], 1)], "item 0: 1 labels for 2 samples"),
        ([(ROWS[0], 0.5)], "labels are integers"),
        ([{"y": ROWS[0]}], "item 0: nothing for input 'x'"),
        ([ROWS[0], np.zeros(3, np.float32)], "item 1: input 'x' is nx2, the array 3"),
        (["text"], "item 0: input 'x'"),
        ([Elsewhere()], r"item 0 does not become an array: RuntimeError: use tensor\.detach"),
        ([(ROWS[0], Elsewhere())], "item 0 does not become an array"),
        ([{"x": [[1.0], [1.0, 2.0]]}], "item 0 does not become an array: ValueError"),
        ("nowhere:samples", "nowhere cannot be imported"),
        ("nowhere.py:samples", "there is no file nowhere.py"),
        ("json:nothing", "there is no 'nothing' in json"),
        (":samples", "is none of package.module:name"),
    ],
)
def test_refuses_other_things(data, words):
    with pytest.raises(ModelError, match=words):
        read_samples(data, [X])
