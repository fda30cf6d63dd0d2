"""Execution providers: their names, and which package brings which."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfuse.errors import ModelError

_SUFFIX = "ExecutionProvider"
_ALIASES = {"directml": "Dml", "trt": "Tensorrt"}
_PACKAGES = {
    "CUDA": "onnxruntime-gpu",
    "Tensorrt": "onnxruntime-gpu, and TensorRT itself",
    "NvTensorRTRTX": "onnxruntime-trt-rtx",
    "Dml": "onnxruntime-directml (Windows)",
    "OpenVINO": "onnxruntime-openvino",
    "MIGraphX": "onnxruntime-migraphx",
    "ROCM": "onnxruntime-rocm",
    "CANN": "onnxruntime-cann",
    "QNN": "onnxruntime-qnn",
    "VitisAI": "AMD's Ryzen AI software",
    "CoreML": "onnxruntime on macOS",
    "WebGpu": "onnxruntime-webgpu",
}

AVAILABLE_HINT = "available here: "


def provider_name(name: str) -> str:
    """ONNX Runtime's name for a provider: "cuda" -> "CUDAExecutionProvider".

    Args:
        name: That name itself, or what stands before "ExecutionProvider", in any case.

    Raises:
        ModelError: ONNX Runtime knows no such provider.
    """
    import onnxruntime as ort

    asked = _ALIASES.get(name.lower().strip(), name.strip()).lower().removesuffix(_SUFFIX.lower())
    for known in dict.fromkeys([*ort.get_available_providers(), *ort.get_all_providers()]):
        if known.removesuffix(_SUFFIX).lower() == asked:
            return str(known)
    for short in _PACKAGES:
        if short.lower() == asked:
            return short + _SUFFIX
    raise ModelError(f"ONNX Runtime knows no provider {name!r}; {AVAILABLE_HINT}{_available()}")


def require_provider(name: str) -> str:
    """The same, for a provider that this build of ONNX Runtime has.

    Raises:
        ModelError: There is no such provider, or it is missing here; says which package brings it.
    """
    import onnxruntime as ort

    full = provider_name(name)
    if full in ort.get_available_providers():
        return full
    package = _PACKAGES.get(full.removesuffix(_SUFFIX), "a build of ONNX Runtime from its source")
    raise ModelError(
        f"provider {name!r} is not in this build of ONNX Runtime {ort.__version__}: "
        f"{package} brings it; {AVAILABLE_HINT}{_available()}"
    )


def short_name(provider: str) -> str:
    """The name that users type: "CUDAExecutionProvider" -> "cuda"."""
    return provider.removesuffix(_SUFFIX).lower()


def require_providers(names: Sequence[str]) -> list[str]:
    """`require_provider` for each name, without repetitions; names may hold commas.

    Raises:
        ModelError: As `require_provider`, or no name is given.
    """
    asked = [part.strip() for name in names for part in name.split(",") if part.strip()]
    if not asked:
        raise ModelError("no execution provider is named")
    return list(dict.fromkeys(map(require_provider, asked)))


def _available() -> str:
    import onnxruntime as ort

    return ", ".join(map(short_name, ort.get_available_providers()))
