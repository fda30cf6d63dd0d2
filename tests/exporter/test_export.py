"""onnxfuse.export: what the model is, how it is checked, what is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import onnxfuse
from onnxfuse import ExportWarning, ModelError, ParityError
from onnxfuse.exporter import backends
from tests.exporter.modules import (
    EXPORTERS,
    Block,
    Flat,
    Frozen,
    Named,
    Neither,
    SignSwitch,
    Strided,
    Switch,
    X,
)
from tests.exporter.reading import dims, operators


def run(model, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feeds)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_training_form_stays(block, exporter):
    result = onnxfuse.export(block, X, exporter=exporter)
    assert result.exporter == exporter
    norms = {"BatchNormalization": 1} if exporter == "script" else {}
    assert operators(result.model) == {"Conv": 2, "Add": 2, **norms}
    assert dims(result.model.graph.input) == {"image": [1, 4, 8, 6]}
    assert dims(result.model.graph.output) == {"output": [1, 4, 8, 6]}
    assert [p.inputs for p in result.parity] == ["1x4x8x6", "1x4x8x6 negated"]
    assert all(p.agrees and p.error < 1e-6 for p in result.parity)
    assert (result.notes, result.report) == ((), None)
    onnx.checker.check_model(result.model, full_check=True)
    with torch.no_grad():
        expected = block.eval()(X).numpy()
    np.testing.assert_allclose(run(result.model, image=X.numpy())[0], expected, atol=1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_optimized_at_once(block, exporter):
    result = onnxfuse.export(block, X, exporter=exporter, optimize=True, dynamic=["batch"])
    assert operators(result.model) == {"Conv": 1}
    assert len(result.report.folds) == 1
    assert [p.inputs for p in result.parity] == ["1x4x8x6", "1x4x8x6 negated", "2x4x8x6"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_dynamic_axes_from_examples_of_extent_one(block, exporter):
    result = onnxfuse.export(block, X, exporter=exporter, dynamic=["batch", "height", "width"])
    assert dims(result.model.graph.input) == {"image": ["batch", 4, "height", "width"]}
    checked = [p.inputs for p in result.parity]
    assert checked == ["1x4x8x6", "1x4x8x6 negated", "2x4x8x6", "1x4x16x6", "1x4x8x12"]


def test_names_of_several_inputs_and_outputs():
    args = torch.randint(0, 9, (2, 5)), torch.randn(2, 5)
    result = onnxfuse.export(Named(), args, dynamic={"ids": {1: "n"}, "mask": {1: "n"}})
    assert dims(result.model.graph.input) == {"ids": [2, "n"], "mask": [2, "n"]}
    names = [value.name for value in result.model.graph.output]
    assert names == ["sum", "parts_0", "parts_1", "ids_"]
    outputs = run(result.model, ids=args[0].numpy(), mask=args[1].numpy())
    np.testing.assert_array_equal(outputs[1], 2 * args[0].numpy())


def test_names_that_the_user_gives(block):
    options = {"input_names": ["pixels"], "output_names": ["logits"], "exporter": "script"}
    result = onnxfuse.export(block, (X,), **options)
    assert [v.name for v in (*result.model.graph.input, *result.model.graph.output)] == [
        "pixels",
        "logits",
    ]


def test_every_part_is_left_in_the_mode_it_was_in(block):
    block.train()
    block.norm.eval()
    onnxfuse.export(block, X, exporter="script")
    assert block.training
    assert block.drop.training
    assert not block.norm.training


def test_the_opset_asked_for(block):
    result = onnxfuse.export(block, X, exporter="script", opset=13)
    assert [o.version for o in result.model.opset_import] == [13]
    with pytest.raises(ModelError, match=r"\(dynamo\) failed: .*; the tracing exporter .* failed"):
        onnxfuse.export(block, X, opset=99)


def test_no_path_of_this_machine_is_in_the_model(block):
    data = onnxfuse.export(block, X, exporter="dynamo").model.SerializeToString()
    assert b"stack_trace" not in data
    assert b".py" not in data


def test_writes_the_model(block, tmp_path):
    result = onnxfuse.export(block, X, tmp_path / "m.onnx", exporter="script")
    assert onnx.load(tmp_path / "m.onnx") == result.model
    with pytest.raises(ModelError, match="there is no folder"):
        onnxfuse.export(block, X, tmp_path / "no" / "m.onnx")


# The other exporter ------------------------------------------------------------------------------


def test_falls_back_to_the_other_exporter_and_says_so():
    with pytest.warns(ExportWarning, match=r"default exporter \(dynamo\) failed: .*other one"):
        result = onnxfuse.export(Switch(), X)
    assert result.exporter == "script"
    assert len(result.notes) == 1
    assert "\n" not in result.notes[0]
    assert operators(result.model)["Relu"] == 1


def test_an_exporter_that_was_asked_for_has_no_stand_in():
    with pytest.raises(ModelError, match=r"\(dynamo\) failed"):
        onnxfuse.export(Switch(), X, exporter="dynamo")


def test_says_why_both_failed():
    with pytest.raises(ModelError, match=r"\(dynamo\) failed: .*\(script\) failed: ") as caught:
        onnxfuse.export(Neither(), torch.randn(1, 4, 4))
    assert "\n" not in str(caught.value)


# The check ---------------------------------------------------------------------------------------


def test_a_branch_on_values_is_not_taken_for_settled():
    with pytest.raises(ParityError, match="on 1x4x8x6 negated output 'output'"):
        onnxfuse.export(SignSwitch(), X.abs(), exporter="script")


def test_sizes_frozen_by_the_exporter_are_refused():
    with pytest.raises(ModelError, match=r"run its model on 1x4x16x6: .* the example's sizes"):
        onnxfuse.export(Frozen(), X, exporter="script", dynamic=["height"])


def test_a_model_that_is_wrong_at_other_sizes_is_refused(tmp_path):
    with pytest.raises(ParityError, match="on 1x4x8x12 output 'output'"):
        onnxfuse.export(Strided(), X, tmp_path / "m.onnx", exporter="script", dynamic=["width"])
    assert not list(tmp_path.iterdir())


def test_an_axis_that_the_module_fixes_is_refused():
    with pytest.raises(ModelError, match=r"failed: .*not checked on 1x3x16x8, where PyTorch stops"):
        onnxfuse.export(Flat(), torch.randn(1, 3, 8, 8), dynamic=["height"])


def test_a_wrong_model_is_never_written(block, tmp_path, monkeypatch):
    def wrong(request):
        with torch.no_grad():
            request.subject.exported.point.bias[2] += 1e-3
        return backends._script(request)

    monkeypatch.setattr(backends, "_EXPORTERS", {"script": wrong})
    with pytest.raises(ParityError, match="differs from PyTorch's by"):
        onnxfuse.export(block, X, tmp_path / "m.onnx", exporter="script")
    assert not list(tmp_path.iterdir())


def test_the_check_can_be_left_out():
    result = onnxfuse.export(SignSwitch(), X.abs(), exporter="script", check=False)
    assert result.parity == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types(dtype):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).to(dtype)
    result = onnxfuse.export(module, torch.randn(2, 4).to(dtype), exporter="script")
    assert all(p.agrees for p in result.parity)


def test_bfloat16_needs_no_check():
    module, x = nn.Linear(4, 3).bfloat16(), torch.randn(2, 4).bfloat16()
    with pytest.raises(ModelError, match="bfloat16 cannot be checked"):
        onnxfuse.export(module, x, exporter="script")
    assert onnxfuse.export(module, x, exporter="script", check=False).model


# What is refused ---------------------------------------------------------------------------------


class Stubborn(Block):
    def train(self, mode=True):
        return super().train(True)


class Noisy(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x)


class Mixed(nn.Module):
    def forward(self, x):
        return x, None, 3


class Nothing(nn.Module):
    def forward(self, x):
        return None


REFUSED = {
    "training mode": (Stubborn(), X, {}, "'Stubborn' stays in training mode"),
    "noise": (Noisy(), X, {}, "'output' is another one at every run: dropout"),
    "a number": (Mixed(), X, {}, "output 'output_2' is a int, not a tensor"),
    "args": (Block(), None, {}, "args are a tensor or several, not a NoneType"),
    "axes": (Block(), X, {"dynamic": 3}, "dynamic takes names of axes, not 3"),
    "axes by input": (Block(), X, {"dynamic": {"image": ["n"]}}, "are {input: {axis: name}}"),
    "no output": (Nothing(), X, {}, "returns no tensor"),
    "wrong channels": (Block(), torch.randn(1, 3, 8, 8), {}, "cannot run on 1x3x8x8 float32"),
    "wrong type": (Block(), X.double(), {}, "cannot run on 1x4x8x6 float64"),
    "too many inputs": (Block(), (X, X), {}, "2 inputs are given, but forward.. takes 1"),
    "no input": (Block(), (), {}, "cannot run on"),
    "no tensor": (Block(), ([1],), {}, "input 0 is a list, not a tensor"),
    "no module": (len, X, {}, "takes a torch.nn.Module or an ExportedProgram, not builtin"),
    "exporter": (Block(), X, {"exporter": "fast"}, "no exporter is called 'fast'"),
    "input names": (Block(), X, {"input_names": ["a", "b"]}, "1 inputs, but names for 2: a, b"),
    "output names": (Block(), X, {"output_names": ["a", "b"]}, "1 outputs, but names for 2"),
    "one name": (Block(), X, {"output_names": ["image"]}, "or one that an input has"),
    "axis": (Block(), X, {"dynamic": ["depth"]}, "no input has an axis 'depth'"),
}


@pytest.mark.parametrize(("module", "args", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses(module, args, options, said):
    with pytest.raises(ModelError, match=said) as caught:
        onnxfuse.export(module, args, **options)
    assert "\n" not in str(caught.value)
