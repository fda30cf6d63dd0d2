"""Why something was left alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """An operation that would not be exact, or is not known to be. A value, not an error.

    Attributes:
        reason: One clause in words, with the offending values.
    """

    reason: str
