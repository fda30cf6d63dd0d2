"""Peak memory of a model, measured in a process of its own."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from onnxfuse.benchmark.processes import call
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
    if sys.platform == "win32":
        return None, "peak memory is measured on Linux and macOS only"
    file = ModelFile(Path(os.path.abspath(model.path)), model.name)
    printed = call(f"{__package__}.memory_probe", (settings, file, feeds), LIMIT)
    if isinstance(printed, str):
        return None, f"{model.name}: peak memory was not measured: {printed}"
    return int(printed.split()[-1]), ""
