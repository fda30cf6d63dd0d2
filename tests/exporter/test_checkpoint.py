"""Checkpoints: what is loaded, and what is never unpickled."""

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from onnxfuse import ModelError
from onnxfuse.exporter.checkpoint import load_checkpoint
from tests.exporter.modules import Block


@pytest.fixture
def trained():
    module = Block()
    with torch.no_grad():
        for index, value in enumerate(module.state_dict().values()):
            value.fill_(index + 1)
    return module


WRAPPED = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "nested": lambda state: {"model": {"state_dict": state}},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
    "compiled, then parallel": lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
    "averaged": lambda state: {"params_ema": state},
    "flat": lambda state: {**state, "epoch": 3},
    "no counters": lambda state: {k: v for k, v in state.items() if "tracked" not in k},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_loads_a_state_dict(tmp_path, trained, wrap):
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pt")
    module = Block()
    load_checkpoint(module, tmp_path / "w.pt")
    for key, value in trained.state_dict().items():
        assert torch.equal(module.state_dict()[key], value) or "tracked" in key


def test_loads_safetensors_whatever_the_name(tmp_path, trained):
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "weights.bin")
    module = Block()
    load_checkpoint(module, tmp_path / "weights.bin")
    assert torch.equal(module.norm.running_var, trained.norm.running_var)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", ["torch", "legacy", "pickle"])
def test_nothing_but_tensors_is_unpickled(tmp_path, trained, save):
    content = {**trained.state_dict(), "wide.bias": Trap(tmp_path / "sprung")}
    path = tmp_path / "w.pt"
    if save == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    with pytest.raises(ModelError, match=r"w\.pt: ") as caught:
        load_checkpoint(Block(), path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_whole_module_is_refused_in_words(tmp_path, trained):
    torch.save(trained, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"more than tensors.*torch.save\(module.state_dict"):
        load_checkpoint(Block(), tmp_path / "w.pt")


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


BAD = {
    "missing": (without("wide.weight"), r"no 'wide.weight' \(8 keys in the file\)"),
    "all missing": (lambda state: {"head.weight": torch.ones(2)}, "no 'wide.weight' and 7 more"),
    "unknown": (lambda state: {**state, "head.bias": torch.ones(2)}, "module has no 'head.bias'"),
    "shape": (
        lambda state: {**state, "wide.weight": torch.ones(4, 4, 5, 5)},
        "'wide.weight' is 4x4x5x5, in the module 4x4x3x3",
    ),
    "kind": (
        lambda state: {**state, "wide.bias": torch.ones(4, dtype=torch.int64)},
        r"'wide.bias' is of torch.int64, in the module of torch.float32",
    ),
    "complex": (
        lambda state: {**state, "wide.bias": torch.ones(4) * 1j},
        r"'wide.bias' is of torch.complex64",
    ),
    "sparse": (
        lambda state: {**state, "wide.bias": torch.ones(4).to_sparse()},
        "'wide.bias' is no dense tensor of plain numbers",
    ),
    "meta": (
        lambda state: {**state, "wide.bias": torch.ones(4, device="meta")},
        "'wide.bias' is no dense tensor of plain numbers",
    ),
    "empty": (lambda state: {}, "holds no state_dict"),
    "a tensor": (lambda state: state["wide.bias"], "holds no state_dict"),
    "numbers": (lambda state: {"epoch": 3}, "holds no state_dict"),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_refuses_what_does_not_fit(tmp_path, trained, change, said):
    torch.save(change(trained.state_dict()), tmp_path / "w.pt")
    module = Block()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=said):
        load_checkpoint(module, tmp_path / "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "not a checkpoint"),
        (b"hello, this is text", "not a checkpoint"),
        (b"PK\x03\x04 cut short", "not a checkpoint"),
        (b"\x08\0\0\0\0\0\0\0{broken}", "not a safetensors file"),
    ],
)
def test_refuses_other_files(tmp_path, content, said):
    if content is not None:
        (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "w.pt")


def test_a_mapping_that_holds_itself_is_no_state_dict(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="holds no state_dict"):
        load_checkpoint(Block(), tmp_path / "w.pt")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


def test_a_tied_weight_is_needed_once(tmp_path):
    trained, module = Tied(), Tied()
    safetensors.torch.save_model(trained, tmp_path / "w.safetensors")
    load_checkpoint(module, tmp_path / "w.safetensors")
    assert torch.equal(module.b.weight, trained.b.weight)
    assert module.a.weight is module.b.weight
