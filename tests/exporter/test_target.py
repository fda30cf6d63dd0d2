"""TARGET: factories in packages and files."""

import sys

import pytest
import torch

from onnxfuse import ModelError
from onnxfuse.exporter.target import load_module, parse_arguments
from tests.exporter.modules import FACTORIES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a file of factories, the same as a package, and a sibling."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "torch.py").write_text(FACTORIES)
    (tmp_path / "sub" / "sibling.py").write_text("")
    (tmp_path / "factories_of_a_test.py").write_text(FACTORIES.replace("import sibling", "pass"))
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("sibling", "factories_of_a_test"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "target",
    [
        "sub/torch.py:Block",
        "./sub/torch.py:block",
        "sub/torch.py:Nested.block",
        "sub/torch.py:ready",
        "factories_of_a_test:block",
    ],
)
def test_a_factory(folder, target):
    before, path = sys.modules["torch"], list(sys.path)
    module = load_module(target, {}, seed=0)
    assert isinstance(module, torch.nn.Module)
    assert module.wide.in_channels == 4
    assert sys.modules["torch"] is before
    assert sys.path == path


def test_arguments_reach_the_factory(folder):
    arguments = parse_arguments(["channels=6", "name=a=b"])
    assert arguments == {"channels": 6, "name": "a=b"}
    module = load_module("sub/torch.py:Block", arguments, seed=0)
    assert (module.wide.in_channels, module.name) == (6, "a=b")


def test_arguments_are_literals_or_strings():
    texts = ["a=1", "b=0.5", "c=False", "d=None", "e=(1, 2)", "f=resnet", "g=", "h='7'"]
    values = [1, 0.5, False, None, (1, 2), "resnet", "", "7"]
    assert list(parse_arguments(texts).values()) == values


@pytest.mark.parametrize("text", ["channels", "=3", "2x=3", "a-b=1"])
def test_refuses_arguments_written_otherwise(text):
    with pytest.raises(ModelError, match="not written as KEY=VALUE"):
        parse_arguments([text])


def test_refuses_an_argument_given_twice():
    with pytest.raises(ModelError, match="'a' is given twice"):
        parse_arguments(["a=1", "a=2"])


def test_weights_depend_on_the_seed_alone(folder):
    state = torch.random.get_rng_state()
    first, again, other = (load_module("sub/torch.py:Block", {}, seed) for seed in (3, 3, 4))
    assert torch.equal(first.wide.weight, again.wide.weight)
    assert not torch.equal(first.wide.weight, other.wide.weight)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        ("model", {}, "none of package.module:factory"),
        ("sub/torch.py", {}, "none of package.module:factory"),
        (":block", {}, "none of package.module:factory"),
        ("sub/none.py:block", {}, "there is no file sub/none.py"),
        ("no_such_package:block", {}, "ModuleNotFoundError: No module named 'no_such_package'"),
        ("broken.py:block", {}, "No module named 'nothing_of_that_name'"),
        ("sub/torch.py:nobody", {}, "there is no 'nobody' in sub/torch.py"),
        ("sub/torch.py:Nested.nobody", {}, "there is no 'nobody'"),
        ("sub/torch.py:number", {}, "is a int, not a factory"),
        ("sub/torch.py:ready", {"channels": 3}, "takes no arguments"),
        ("sub/torch.py:fails", {}, "failed: ValueError: no weights"),
        ("sub/torch.py:leaves", {}, "failed: SystemExit"),
        ("sub/torch.py:text", {}, "made a str, not a torch.nn.Module"),
        ("sub/torch.py:Block", {"depth": 3}, "unexpected keyword argument 'depth'"),
    ],
)
def test_refuses_what_makes_no_module(folder, target, arguments, said):
    with pytest.raises(ModelError, match=said) as caught:
        load_module(target, arguments, seed=0)
    assert "\n" not in str(caught.value)
