"""Pretrained networks that others made: PP-OCRv4 and PP-OCR, inside rapidocr-onnxruntime."""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import onnxfuse
from tests.truth import run_in_float64

SPEC = importlib.util.find_spec("rapidocr_onnxruntime")
assert SPEC is not None, "the test extra installs rapidocr-onnxruntime"
FOLDER = Path(SPEC.origin).parent / "models"

SHAPES = {
    "ch_PP-OCRv4_det_infer": [(1, 3, 160, 192), (2, 3, 96, 96)],
    "ch_PP-OCRv4_rec_infer": [(1, 3, 48, 320), (3, 3, 48, 128)],
    "ch_ppocr_mobile_v2.0_cls_infer": [(1, 3, 48, 192), (4, 3, 48, 100)],
}
LARGEST_DISTANCE = 1e-5


def with_logits(model):
    """A copy whose only output is what goes into the final Sigmoid or Softmax."""
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    while last.op_type not in ("Sigmoid", "Softmax"):
        last = next(n for n in model.graph.node if last.input[0] in n.output)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(last.input[0], 1, None))
    return copy


def session(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def run(model, image):
    runner = session(model)
    return runner.run(None, {runner.get_inputs()[0].name: image})[0]


def distance(actual, expected):
    expected = expected.astype(np.float64)
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module", params=SHAPES)
def network(request):
    path = FOLDER / f"{request.param}.onnx"
    original = onnx.load(path)
    return original, onnxfuse.optimize(path), SHAPES[request.param]


def test_every_batch_normalization_and_constant_goes(network):
    original, result, _ = network
    before = Counter(n.op_type for n in original.graph.node)
    after = Counter(n.op_type for n in result.model.graph.node)
    assert before["BatchNormalization"] > 0
    assert not after["BatchNormalization"]
    assert not after["Constant"]
    assert sum(after.values()) < sum(before.values()) / 2


def test_no_scale_is_left_beside_a_conv(network):
    """A Mul or Div by a constant stays where the runtime fuses it, or where no Conv is linear."""
    _, result, _ = network
    constants = {t.name for t in result.model.graph.initializer}
    makers = {o: n.op_type for n in result.model.graph.node for o in n.output}
    protected = {r.node for r in result.report.refusals if "LayerNormalization" in r.reason}
    linear = {"Conv", "ConvTranspose", "MatMul", "Gemm", "BatchNormalization"}
    for node in result.model.graph.node:
        scales = [n for n in node.input if n in constants]
        if node.op_type in ("Mul", "Div") and scales and node.name not in protected:
            data = next(n for n in node.input if n not in constants)
            assert makers.get(data) not in linear, node.name


@pytest.mark.slow
def test_logits_agree(network):
    """Within 1e-5; and where the original itself is further than that from the truth, within it.

    By the triangle inequality two models whose distances to the truth are at most d and 2 d are at
    most 3 d apart: constant images take these networks into saturation, where d is up to 5e-5.
    """
    original, result, shapes = network
    before, after = with_logits(original), with_logits(result.model)
    own, ours = [], []
    for seed, shape in enumerate(shapes):
        noise = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
        for image in (noise, *(np.full(shape, v, np.float32) for v in (0.3, -0.9))):
            (truth,) = run_in_float64(before, {before.graph.input[0].name: image})
            expected, actual = run(before, image), run(after, image)
            own.append(distance(expected, truth))
            ours.append(distance(actual, truth))
            assert distance(actual, expected) < max(LARGEST_DISTANCE, 3 * own[-1])
    assert np.mean(ours) <= 2 * np.mean(own)


def test_the_result_is_valid_and_a_fixed_point(network):
    _, result, _ = network
    onnx.checker.check_model(result.model, full_check=True)
    again = onnxfuse.optimize(result.model)
    assert not again.report.folds
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_inputs_and_outputs_keep_names_types_and_symbols(network):
    original, result, _ = network
    assert list(result.model.graph.input) == list(original.graph.input)
    assert list(result.model.graph.output) == list(original.graph.output)
    assert list(result.model.metadata_props) == list(original.metadata_props)
