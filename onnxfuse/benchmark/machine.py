"""The machine that is measured on, in words."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import numpy as np

_CPUINFO = Path("/proc/cpuinfo")


def describe(*, gpu: bool = False) -> dict[str, str]:
    """Processor, operating system and versions, by name.

    Args:
        gpu: Whether NVIDIA's GPUs are named too, where their driver tells.
    """
    import onnxruntime as ort

    system = f"{platform.system()} {platform.release()}".strip()
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count() or "unknown"),
        "system": f"{system} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
    }
    if gpu and (names := _gpus()):
        found["gpu"] = names
    return found


def _processor() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _gpus() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())
