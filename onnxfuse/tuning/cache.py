"""Measured ratios, kept from one run to the next.

They hold for a version of the runtime, a processor, a provider and a number of threads, and for
nodes, types and sizes; not for weights, on whose values time does not depend.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from onnxfuse import io
from onnxfuse.benchmark.result import Interval
from onnxfuse.errors import ModelError

_VERSION = 1
VARIABLE = "ONNXFUSE_CACHE"


def folder() -> Path:
    """Where it is kept: ONNXFUSE_CACHE, or the place for caches of this system."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home()) / "onnxfuse"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "onnxfuse"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "onnxfuse"


def _home() -> Path:
    """The user's folder; one that is not there where nobody knows it."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)


class Cache:
    """Ratios by what was measured."""

    def __init__(self, machine: Sequence[str]) -> None:
        """Reads what is there; what cannot be read counts as nothing.

        Args:
            machine: What the numbers hold for.
        """
        self._file = folder() / "tune.json"
        self._machine = machine
        self._found = _read(self._file)
        self._is_new = False

    def key(self, parts: Sequence[str]) -> str:
        """The key of a measurement."""
        text = json.dumps([_VERSION, *self._machine, *parts])
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> list[Interval] | None:
        """The ratios of each way, as they were measured; None where they were not."""
        found = self._found.get(key)
        return None if found is None else [Interval(**one) for one in found]

    def put(self, key: str, ratios: Sequence[Interval]) -> None:
        """Keeps ratios, until `save`."""
        self._found[key] = [asdict(one) for one in ratios]
        self._is_new = True

    def save(self) -> None:
        """Writes what is new, beside what others have written meanwhile, where that is possible."""
        if self._is_new:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                io.write_text(json.dumps({**_read(self._file), **self._found}), self._file)
            except (OSError, ModelError):
                return  # there is no place for it: the next run measures again


def _read(file: Path) -> dict[str, list[dict[str, float]]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    fields = {"value", "low", "high"}
    if not isinstance(found, dict):
        return {}
    return {
        key: ratios
        for key, ratios in found.items()
        if isinstance(ratios, list)
        and ratios
        and all(isinstance(one, dict) and one.keys() == fields for one in ratios)
        and all(type(n) is float and math.isfinite(n) for one in ratios for n in one.values())
    }
