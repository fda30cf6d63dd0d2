"""Fixtures for several folders."""

import os

import onnxruntime
import pytest

os.environ["ONNXFUSE_GATE"] = "0"  # what no test looks at is not measured


def pytest_collection_modifyitems(items):
    """Tests marked cuda need a provider that few builds of ONNX Runtime have."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="this build of ONNX Runtime has no CUDA"))


@pytest.fixture(scope="module")
def one_thread():
    """The inputs are small: threads would cost more than they save where cores are shared."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def call(capfd):
    """Runs the command line in this process; gives its exit code, stdout and stderr."""
    from onnxfuse.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main.main(args=list(map(str, arguments)), prog_name="onnxfuse")
        return (stop.value.code or 0, *capfd.readouterr())

    return run
