"""Names of execution providers."""

import onnxruntime
import pytest

from onnxfuse import ModelError
from onnxfuse.runtime import provider_name, require_provider
from onnxfuse.runtime.providers import require_providers, short_name


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("cpu", "CPUExecutionProvider"),
        ("CPU", "CPUExecutionProvider"),
        ("CPUExecutionProvider", "CPUExecutionProvider"),
        ("cuda", "CUDAExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("trt", "TensorrtExecutionProvider"),
        ("directml", "DmlExecutionProvider"),
        ("rocm", "ROCMExecutionProvider"),
        ("openvinoexecutionprovider", "OpenVINOExecutionProvider"),
    ],
)
def test_what_users_type(name, full):
    assert provider_name(name) == full
    assert provider_name(short_name(full)) == full


def test_a_missing_provider_is_an_error_that_names_its_package():
    there = onnxruntime.get_available_providers()
    for name, package in (("cuda", "onnxruntime-gpu"), ("dml", "onnxruntime-directml")):
        if provider_name(name) not in there:
            with pytest.raises(ModelError, match=package):
                require_provider(name)
    with pytest.raises(ModelError, match=r"knows no provider 'gpu0'; available here: .*cpu"):
        require_provider("gpu0")


def test_several_with_commas_and_twice():
    assert require_providers(["cpu, cpu", "CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    with pytest.raises(ModelError, match="no execution provider"):
        require_providers([" ,"])
