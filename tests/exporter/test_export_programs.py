"""onnxfuse.export of programs of torch.export."""

import warnings

import pytest
import torch
from torch import nn

import onnxfuse
from onnxfuse import ModelError
from tests.exporter.modules import X
from tests.exporter.reading import dims, operators


def program(module):
    batch = torch.export.Dim("batch")
    return torch.export.export(
        module, (torch.randn(2, 4, 8, 6),), dynamic_shapes=({0: batch},), strict=False
    )


def test_an_exported_program(block):
    result = onnxfuse.export(program(block.eval()), optimize=True)
    assert operators(result.model) == {"Conv": 1}
    assert list(dims(result.model.graph.input)) == ["image"]
    assert isinstance(dims(result.model.graph.input)["image"][0], str)
    assert all(p.agrees for p in result.parity)


@pytest.mark.parametrize("part", ["norm", "drop"])
def test_a_program_in_training_mode_is_refused(block, part):
    block.eval()
    getattr(block, part).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = program(block)
    with pytest.raises(ModelError, match=r"is in training mode: call module\.eval\(\)"):
        onnxfuse.export(made)


def test_batch_statistics_of_a_norm_without_its_own_are_no_training_mode():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert all(p.agrees for p in onnxfuse.export(program(module)).parity)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dynamic": ["batch"]}, "dynamic axes of an exported program are settled"),
        ({"exporter": "script"}, "script exporter takes modules"),
        ({"args": X}, "brings its own example inputs"),
        ({"input_names": ["a", "b"]}, "1 inputs, but names for 2"),
    ],
)
def test_what_a_program_has_settled(block, options, said):
    with pytest.raises(ModelError, match=said):
        onnxfuse.export(program(block.eval()), **options)


def test_a_program_is_checked_at_other_sizes(block):
    checked = [p.inputs for p in onnxfuse.export(program(block.eval())).parity]
    assert checked == ["2x4x8x6", "2x4x8x6 negated", "3x4x8x6"]
