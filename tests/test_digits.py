"""The classifiers of handwritten digits: data, training, and the trained models that ship."""

import functools
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import models
import onnxfuse
from models.branches import NORM_TYPES, Block
from models.digits import DIGITS, LARGEST_VALUE, NUM_CLASSES, load_digits
from models.training import accuracy, train
from scripts import train_digits

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINED = Path(models.__file__).parent / "trained"
SHIPPED = ("repvgg", "dbb", "mobileone")
LARGEST_FILE = 1_000_000  # bytes
GOOD_ACCURACY = 0.97
FEW_EPOCHS = 3

# Two float64 evaluations of these networks differ by about 1e-15; a fold that is wrong in one tap
# or one channel is off by more than 1e-5.
FLOAT64_TOLERANCE = 1e-9


def predictions(model, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    return session.run(["logits"], {"image": images})[0].argmax(axis=1)


def operators(model, op_type):
    return sum(node.op_type == op_type for node in model.graph.node)


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_splits_are_all_images_once():
    training, test = load_digits()
    assert len(training.images) == len(training.labels) == 1352
    assert len(test.images) == len(test.labels) == 445
    assert len(rows(training.images) | rows(test.images)) == 1797
    assert not rows(training.images) & rows(test.images)


def test_splits_hold_the_classes_in_equal_shares():
    training, test = (split.labels.bincount(minlength=NUM_CLASSES) for split in load_digits())
    assert (test == (training + test) // 4).all()


def test_splits_are_the_same_at_every_call():
    for split, again in zip(load_digits(), load_digits(), strict=True):
        assert torch.equal(split.images, again.images)
        assert torch.equal(split.labels, again.labels)


def test_images_are_scaled():
    for split in load_digits():
        assert split.images.shape[1:] == (1, 8, 8)
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == torch.int64
        assert (split.images.min(), split.images.max()) == (0, 1)
        assert (split.images * LARGEST_VALUE).frac().abs().max() == 0


def test_says_that_scikit_learn_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        load_digits()


@pytest.mark.parametrize("name", DIGITS)
def test_deploy_form_of_a_classifier_is_equal(name):
    module = DIGITS[name].factory(0.3).double()
    models.randomize_statistics(module, (64, 1, 8, 8))
    deploy = models.reparameterize(module)
    images = load_digits()[1].images.double()
    with torch.no_grad():
        expected = module(images)
        difference = torch.linalg.vector_norm(deploy(images) - expected)
    assert expected.shape == (len(images), NUM_CLASSES)
    assert difference < FLOAT64_TOLERANCE * torch.linalg.vector_norm(expected)
    assert not any(isinstance(child, (Block, *NORM_TYPES)) for child in deploy.modules())


@functools.cache
def trained(alpha, seed):
    return train(
        functools.partial(DIGITS["three_branch"].factory, 0.3),
        *load_digits()[0],
        epochs=FEW_EPOCHS,
        alpha=alpha,
        seed=seed,
    )


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.slow
def test_training_learns(alpha):
    assert accuracy(trained(alpha, seed=0), *load_digits()[1]) > 0.9


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.nightly
def test_training_depends_on_the_seed_alone(alpha):
    first = trained(alpha, seed=0)
    generator_state = torch.random.get_rng_state()
    again = trained.__wrapped__(alpha, seed=0)
    assert torch.equal(generator_state, torch.random.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.slow
def test_training_differs_by_the_loss():
    assert not torch.equal(trained(None, seed=0).head.weight, trained(1.0, seed=0).head.weight)


@pytest.fixture(scope="module")
def shipped_test():
    with np.load(TRAINED / "digits_test.npz") as data:
        return data["images"], data["labels"]


def test_shipped_data_is_the_test_split(shipped_test):
    _, test = load_digits()
    for shipped, loaded in zip(shipped_test, test, strict=True):
        assert shipped.dtype == loaded.numpy().dtype
        assert np.array_equal(shipped, loaded.numpy())


def test_shipped_files_are_small_and_impersonal():
    files = sorted(TRAINED.iterdir())
    expected = {f"{name}_digits.onnx" for name in SHIPPED} | {"digits_test.npz", "README.md"}
    assert {path.name for path in files} == expected
    for path in files:
        content = path.read_bytes()
        assert len(content) <= LARGEST_FILE
        assert not re.search(rb"site-packages|/(home|root|tmp|usr|work|Users)/", content), path.name


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_folds_to_its_deploy_form_with_equal_predictions(name, shipped_test):
    images, labels = shipped_test
    model = onnx.load(TRAINED / f"{name}_digits.onnx")
    folded = onnxfuse.optimize(model).model

    network = DIGITS[name].factory(0.0).eval()
    deploy = models.reparameterize(network)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in deploy.modules())
    assert operators(model, "Conv") > operators(folded, "Conv") == convolutions
    assert operators(model, "BatchNormalization") > 0
    assert operators(folded, "BatchNormalization") == operators(folded, "Add") == 0

    before = predictions(model, images)
    assert np.array_equal(before, predictions(folded, images))
    assert (before == labels).mean() > GOOD_ACCURACY


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_takes_any_batch(name, shipped_test):
    images, _ = shipped_test
    model = onnx.load(TRAINED / f"{name}_digits.onnx")
    expected = predictions(model, images)
    for batch in (1, 7):
        assert np.array_equal(predictions(model, images[:batch]), expected[:batch])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("three_branch"), pytest.param("dbb", marks=pytest.mark.nightly)]
)
def test_script_writes_what_it_trained(name, tmp_path, capsys):
    train_digits.main([name, "--epochs", "1", "--seeds", "0", "1", "--output", str(tmp_path)])
    heading, _, *table = capsys.readouterr().out.splitlines()[:5]
    assert "R-Drop" in heading
    assert [line.split()[1] for line in table] == ["0", "1", "mean"]
    shown = float(table[0].split("|")[3]) / 100

    network = DIGITS[name].factory(0.3).eval()
    network.load_state_dict(torch.load(tmp_path / f"{name}_digits.pt", weights_only=True))
    _, test = load_digits()
    model = onnx.load(tmp_path / f"{name}_digits.onnx")
    with torch.no_grad():
        expected = network(test.images).argmax(dim=1).numpy()
    assert np.array_equal(predictions(model, test.images.numpy()), expected)
    assert (expected == test.labels.numpy()).mean() == pytest.approx(shown, abs=1e-4)
    with np.load(tmp_path / "digits_test.npz") as data:
        assert np.array_equal(data["images"], test.images.numpy())
