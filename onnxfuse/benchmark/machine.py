"""The machine that is measured on, in words."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import numpy as np

_CPUINFO = Path("/proc/cpuinfo")
_VECTORS = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sve", "SVE"),
    ("asimd", "NEON"),
    ("neon", "NEON"),
)
_PRODUCTS = (
    ("amx_int8", "AMX int8"),
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx_vnni", "AVX-VNNI"),
    ("i8mm", "int8 matrix products"),
    ("asimddp", "dot products"),
)


def describe(*, gpu: bool = False) -> dict[str, str]:
    """Processor, operating system and versions, by name.

    Args:
        gpu: Whether NVIDIA's GPUs are named too, where their driver tells.
    """
    import onnxruntime as ort

    system = f"{platform.system()} {platform.release()}".strip()
    found = {
        "processor": _processor(),
        "instructions": instructions(),
        "cores": str(os.cpu_count() or "unknown"),
        "system": f"{system} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
    }
    if gpu and (names := _gpus()):
        found["gpu"] = names
    return found


def instructions() -> str:
    """The instruction sets for products of bytes and of float32 that the processor has.

    The widest one of each kind, as Linux names them; elsewhere, the architecture.
    """
    flags = frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())
    found = [
        next((name for flag, name in kind if flag in flags), "") for kind in (_VECTORS, _PRODUCTS)
    ]
    return ", ".join(filter(None, found)) or platform.machine() or "unknown"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"


def _cpuinfo(name: str) -> str:
    """What Linux says first under a name of its processors; empty where it says nothing."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _gpus() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())
