"""Entries of the configuration of ONNX Runtime's sessions, as users give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from onnxfuse.errors import ModelError

_SPINNING = "session.force_spinning_stop"
_PREFIXES = ("ep.", "ep_factory.", "mlas.", "optimization.", "session.")
"""What the keys begin with that ONNX Runtime knows; it takes any other one without a word."""


def parse_config(texts: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE texts as entries by key; a value may hold `=`, and be empty.

    Raises:
        ModelError: A text has another form, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ModelError(f"session configuration {text!r} is not written as KEY=VALUE")
        if key in found:
            raise ModelError(f"session configuration {key} is given twice")
        found[key] = value.strip()
    return found


def session_config(given: Mapping[str, Any]) -> dict[str, str]:
    """Entries that can be set for sessions that take turns.

    Raises:
        ModelError: A key or a value is no text, ONNX Runtime knows no keys that begin so, or the
            entry is not for users to set.
    """
    if not isinstance(given, Mapping):
        raise ModelError(f"config takes a mapping of keys to values, not {given!r}")
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ModelError(f"session configuration {key!r}: {value!r}: both have to be text")
        if not key.startswith(_PREFIXES):
            known = ", ".join(_PREFIXES)
            raise ModelError(f"session configuration {key!r}: keys begin with one of {known}")
        if key == _SPINNING:
            raise ModelError(f"session configuration {key}: bench sets it, as models take turns")
    return dict(given)
