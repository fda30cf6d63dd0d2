"""The public interface: names, accepted models, options, results, errors."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest
import torch

import onnxfuse
from tests.lift.building import Builder, same

EXAMPLE = Path(__file__).resolve().parent.parent / "models" / "three_branch.onnx"


@pytest.fixture
def block():
    b = Builder()
    x = b.input("n", 4, "h", "w")
    wide = b.conv(x, 4, 4, (3, 3), pads=same((3, 3)), output="wide")
    return b.model(b.op("Add", wide, b.conv(x, 4, 4, (1, 1)), output="y"))


def test_public_names():
    assert sorted(onnxfuse.__all__) == [
        "BenchResult",
        "Certificate",
        "CertificateError",
        "CheckResult",
        "Closeness",
        "CompressReport",
        "CompressResult",
        "Compressed",
        "Counts",
        "Divergence",
        "ExportResult",
        "ExportWarning",
        "Fold",
        "Interval",
        "LeftAlone",
        "Meaning",
        "ModelError",
        "OnnxfuseError",
        "OptimizeResult",
        "OutputError",
        "OutputParity",
        "Parity",
        "ParityError",
        "Pixels",
        "QuantizeReport",
        "QuantizeResult",
        "Refused",
        "Report",
        "Timing",
        "Tuned",
        "__version__",
        "bench",
        "check",
        "compress",
        "export",
        "optimize",
        "quantize",
        "tune",
    ]
    assert all(hasattr(onnxfuse, name) for name in onnxfuse.__all__)


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_takes_a_path_a_string_a_proto_and_a_graphsurgeon_graph(tmp_path, block):
    path = tmp_path / "model.onnx"
    onnx.save(block, path)
    for model in (path, str(path), block, gs.import_onnx(block)):
        assert operators(onnxfuse.optimize(model).model) == ["Conv"]


def test_takes_an_onnx_program():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = torch.nn.Conv2d(4, 4, 3, padding="same")
            self.point = torch.nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.wide(x) + self.point(x) + x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Block().eval(), (torch.zeros(1, 4, 8, 8),), verbose=False)
    assert operators(onnxfuse.optimize(program).model) == ["Conv"]


def test_the_model_given_is_not_changed(block):
    before = block.SerializeToString()
    onnxfuse.optimize(block)
    assert block.SerializeToString() == before


def test_kept_tensors_stay(block):
    result = onnxfuse.optimize(block, keep=["wide"])
    assert "wide" in {name for node in result.model.graph.node for name in node.output}


def test_skipped_rules_are_left_out(block):
    assert operators(onnxfuse.optimize(block, skip=["Add"]).model) == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": ["Abs"]}, "no rule is named 'Abs'"),
        ({"keep": ["nowhere"]}, "no node makes a tensor named 'nowhere'"),
    ],
)
def test_options_that_name_nothing_are_errors(block, options, words):
    with pytest.raises(onnxfuse.ModelError, match=words):
        onnxfuse.optimize(block, **options)


def test_errors_have_one_base():
    assert issubclass(onnxfuse.ModelError, onnxfuse.OnnxfuseError)
    assert issubclass(onnxfuse.CertificateError, onnxfuse.OnnxfuseError)


def test_the_report_as_json(block):
    report = json.loads(onnxfuse.optimize(block).report.to_json())
    (fold,) = report["folds"]
    assert fold["target"] == "y"
    assert fold["source"] == "x"
    assert [operator for _, operator in fold["replaced"]] == ["Conv", "Conv", "Add"]
    assert fold["certificate"]["error"] < 1e-10
    assert report["before"]["operators"] == {"Add": 1, "Conv": 2}
    assert report["after"]["operators"] == {"Conv": 1}
    assert report["before"]["macs"] == 224 * 224 * 4 * 4 * 10
    assert report["after"]["macs"] == 224 * 224 * 4 * 4 * 9


def test_save_writes_the_model(tmp_path, block):
    result = onnxfuse.optimize(block)
    result.save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == result.model


def test_progress_is_told():
    steps = []
    onnxfuse.optimize(EXAMPLE, progress=steps.append)
    assert steps[0] == "reading"
    assert len(steps) > 3


def test_torch_is_not_needed(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; import onnxfuse; "
        f"onnxfuse.optimize({str(EXAMPLE)!r}).save({str(tmp_path / 'out.onnx')!r})"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    assert (tmp_path / "out.onnx").is_file()
