"""JSON of result types."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(data: Any) -> str:
    """Indented JSON; numbers that it has none for are "nan", "inf" and "-inf", as float() reads."""
    return json.dumps(_plain(data), indent=2, allow_nan=False)


def _plain(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    return data
