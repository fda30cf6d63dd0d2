"""onnxfuse.export leaves what is the user's alone, and takes values and names of all kinds."""

import concurrent.futures
import copy
import logging
import sys

import pytest
import torch
from torch import nn

import onnxfuse
from models.diverse_branch import DiverseBranchBlock
from models.statistics import randomize_statistics
from onnxfuse import ExportWarning, ModelError
from tests.exporter.modules import EXPORTERS, X
from tests.exporter.reading import dims, operators

# What is the user's stays as it was -----------------------------------------------------------


class Counting(nn.Module):
    """Counts its calls, draws random numbers, and changes its input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        torch.rand(3)
        return x.add_(1) * 2


class Merging(nn.Linear):
    """eval() merges a factor into the weight, and train() takes it out, as LoRA's layers do."""

    def train(self, mode=True):
        if self.training and not mode:
            self.weight.data *= 3
        if mode and not self.training:
            self.weight.data /= 3
        return super().train(mode)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_inputs_buffers_and_the_generator(exporter):
    module, x = Counting(), torch.rand(2, 3)
    kept, state = x.clone(), torch.random.get_rng_state()
    result = onnxfuse.export(module, x, exporter=exporter)
    assert all(p.agrees for p in result.parity)
    assert torch.equal(x, kept)
    assert module.calls == 0
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("training", [True, False])
def test_modules_whose_modes_change_weights(training):
    module = nn.Sequential(Merging(4, 4)).train(training)
    weight = module[0].weight.detach().clone()
    onnxfuse.export(module, torch.rand(2, 4), exporter="script")
    assert torch.equal(module[0].weight, weight)
    assert module[0].training == training


def test_after_a_failure_too(block):
    block.train()
    with pytest.raises(ModelError):
        onnxfuse.export(block, torch.rand(1, 3, 8, 8))
    assert all(part.training for part in block.modules())


def test_threads_take_turns(block):
    stdout, level = sys.stdout, logging.getLogger("torch").level
    modules = [copy.deepcopy(block) for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda m: onnxfuse.export(m, X, exporter="script"), modules))
    assert len({result.model.SerializeToString() for result in results}) == 1
    assert sys.stdout is stdout
    assert logging.getLogger("torch").level == level


def test_sizes_that_an_exporter_has_frozen_may_be_freed_by_folding():
    """The rims that the blocks assign are traced at the example's size, two images."""
    block = DiverseBranchBlock(4, 4)
    randomize_statistics(block, (8, 4, 8, 6))
    options = {"exporter": "script", "dynamic": ["batch", "height"]}
    with pytest.raises(ModelError, match="ONNX Runtime cannot run its model"):
        onnxfuse.export(block, X, **options)
    result = onnxfuse.export(block, X, **options, optimize=True)
    assert operators(result.model) == {"Conv": 1}
    assert [p.inputs for p in result.parity][2:] == ["2x4x8x6", "1x4x16x6"]


# Values, names and sizes of all kinds -----------------------------------------------------------


class Lengths(nn.Module):
    """Takes lengths of at least one."""

    def forward(self, x, lengths):
        assert bool((lengths > 0).all())
        return x * lengths[:, None]


def test_dynamic_axes_keep_the_values_of_the_examples():
    args = torch.rand(1, 5), torch.tensor([5])
    result = onnxfuse.export(Lengths(), args, dynamic=["batch"], exporter="script", check=False)
    assert dims(result.model.graph.input) == {"x": ["batch", 5], "lengths": ["batch"]}


class Positive(nn.Module):
    """Refuses negative numbers, and branches on values."""

    def forward(self, x):
        if bool((x < 0).any()):
            raise ValueError("negative")
        return x.sqrt()


def test_inputs_that_pytorch_refuses_do_not_keep_from_the_other_exporter():
    with pytest.warns(ExportWarning) as warned:
        result = onnxfuse.export(Positive(), X.abs())
    assert result.exporter == "script"
    notes = [str(warning.message) for warning in warned]
    assert any("negated, where PyTorch stops: ValueError: negative" in note for note in notes)


class Longest(nn.Module):
    """Takes sequences up to a length."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.rand(8, 4))

    def forward(self, x):
        assert x.shape[1] <= 8
        return x + self.positions[: x.shape[1]]


def test_axes_that_cannot_be_longer_are_checked_shorter():
    dynamic = {"x": {1: "length"}}
    result = onnxfuse.export(Longest(), torch.rand(2, 8, 4), dynamic=dynamic, exporter="script")
    assert [p.inputs for p in result.parity] == ["2x8x4", "2x8x4 negated", "2x4x4"]
    assert result.notes == ()


class Several(nn.Module):
    def forward(self, *tensors):
        a, b = tensors
        return {"a": {"b": a + b}, "a_b": a - b, "none": None}


def test_any_number_of_inputs_and_names_that_collide():
    args = torch.rand(2, 3), torch.rand(2, 3)
    result = onnxfuse.export(Several(), args, dynamic=["batch"], exporter="dynamo")
    names = [v.name for v in (*result.model.graph.input, *result.model.graph.output)]
    assert names == ["input_0", "input_1", "a_b", "a_b_"]


def test_a_deep_network_in_float64():
    layers = [(nn.Linear(8, 8), nn.LayerNorm(8), nn.SiLU()) for _ in range(30)]
    module = nn.Sequential(*(part for layer in layers for part in layer)).double()
    result = onnxfuse.export(module, torch.rand(2, 8).double(), exporter="script")
    assert all(p.agrees for p in result.parity)
