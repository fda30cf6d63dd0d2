"""Peak memory of a model, measured in a process of its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from onnxfuse.benchmark.settings import Settings
from onnxfuse.runtime import Feeds
from onnxfuse.runtime.session import Openable

LIMIT = 600.0
"""Seconds after which the process is given up."""


@dataclass(frozen=True)
class ModelFile:
    """A model's file, for another process.

    Attributes:
        path: The file.
        name: What messages call the model.
    """

    path: Path
    name: str


def peak_memory(model: Openable, settings: Settings, feeds: Feeds) -> tuple[int | None, str]:
    """By how much resident memory grows when a session is created and run.

    Args:
        model: The model.
        settings: How to load it.
        feeds: What to run it on.

    Returns:
        Bytes in the memory of the host, counted from before the session was created; or None, and
        why it could not be measured.
    """
    path = Path(os.path.abspath(model.path))
    given = pickle.dumps((settings, ModelFile(path, model.name), feeds))
    command = [sys.executable, "-m", f"{__package__}.memory_probe"]
    search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"}
    if sys.platform == "win32":
        return None, "peak memory is measured on Linux and macOS only"
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, env=environment, timeout=LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{model.name}: peak memory was not measured: {error}"
    if done.returncode == 0:
        return int(done.stdout.split()[-1]), ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = lines[-1] if lines else f"the process ended with {done.returncode}"
    return None, f"{model.name}: peak memory was not measured: {said}"
