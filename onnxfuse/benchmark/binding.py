"""Runs of a session with inputs and outputs where its provider computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onnxfuse.runtime import Feeds, RunError, Session
from onnxfuse.runtime.session import said

DEVICES: Mapping[str, str] = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
    "DmlExecutionProvider": "dml",
    "CANNExecutionProvider": "cann",
    "WebGpuExecutionProvider": "webgpu",
}
"""What ONNX Runtime calls the memory of providers that have their own; the others take numpy's."""


def is_bound(provider: str, feeds: Feeds) -> bool:
    """True when inputs and outputs stay in device memory; strings and sequences cannot."""
    return provider in DEVICES and all(
        isinstance(value, np.ndarray) and value.dtype.kind != "O" for value in feeds.values()
    )


def caller(session: Session, feeds: Feeds) -> Callable[[], object]:
    """A function that runs a session once, ready to be timed; the first run is made here.

    On the CPU that is `session.run` with numpy arrays, as applications call it. On a device with
    memory of its own the inputs are copied there beforehand, the outputs stay there, and the
    function returns when they are computed: no copy is timed.

    Raises:
        RunError: ONNX Runtime cannot run the model on these inputs.
    """
    call = _bound(session, feeds) if is_bound(session.provider, feeds) else _plain(session, feeds)
    try:
        call()
    except Exception as error:  # the runtime raises types of its own, C++ ones
        raise RunError(f"{session.name}: {said(error)}") from error
    return call


def _plain(session: Session, feeds: Feeds) -> Callable[[], object]:
    raw: Any = session.raw

    def call() -> object:
        return raw.run(None, feeds)

    return call


def _bound(session: Session, feeds: Feeds) -> Callable[[], object]:
    import onnxruntime as ort

    device = DEVICES[session.provider]
    raw: Any = session.raw
    binding = raw.io_binding()
    for name, array in feeds.items():
        value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
        binding.bind_ortvalue_input(name, value)  # which keeps it alive
    for output in raw.get_outputs():
        binding.bind_output(output.name, device)
    binding.synchronize_inputs()

    def call() -> object:
        raw.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return None

    return call
