"""Parity on CUDA; skipped where ONNX Runtime has no CUDA provider."""

import pytest

import onnxfuse
from tests.parity.breaking import bias_off, folded_convs
from tests.parity.test_wrong_folds import folded

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("name", ["three_branch", "repvgg_a0"])
def test_folds_agree_on_cuda_without_tf32(name):
    model, result = folded(name)
    found = onnxfuse.check(model, result.model, providers=["cpu", "cuda"])
    assert found.agrees
    assert {output.provider for output in found.outputs} == {"cpu", "cuda"}
    assert max(output.second_error for output in found.outputs) < 1e-5


def test_a_wrong_fold_differs_on_cuda():
    model, result = folded("three_branch")
    (conv, *_) = folded_convs(result)
    assert not onnxfuse.check(model, bias_off(result.model, conv, 3), providers=["cuda"]).agrees


def test_tf32_is_no_rounding_of_float32():
    model, result = folded("repvgg_a0")
    exact, coarse = (
        onnxfuse.check(model, result.model, providers=["cuda"], tf32=tf32) for tf32 in (False, True)
    )
    worst = [max(output.first_error for output in found.outputs) for found in (exact, coarse)]
    assert worst[1] > 10 * worst[0]
