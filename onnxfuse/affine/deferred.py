"""Arrays computed on first use, so that plans can be drawn before any weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LARGE_BYTES = 1 << 16
_borrowed: ContextVar[list[Deferred] | None] = ContextVar("borrowed", default=None)


class Deferred:
    """A float64 array computed when first called for, and kept for the next time.

    Infinities and NaN pass through without warnings; they are found where the result is rounded.
    """

    __slots__ = ("_recipe", "_value")

    def __init__(self, recipe: Callable[[], Array]) -> None:
        self._recipe = recipe
        self._value: Array | None = None

    @staticmethod
    def of(value: Array | Deferred) -> Deferred:
        """Wraps an array that is already there."""
        if isinstance(value, Deferred):
            return value
        array = np.asarray(value, dtype=np.float64)
        return Deferred(lambda: array)

    def __call__(self) -> Array:
        """The array."""
        value = self._value
        if value is None:
            with np.errstate(all="ignore"):
                value = self._value = self._recipe()
            borrowed = _borrowed.get()
            if borrowed is not None and value.nbytes > _LARGE_BYTES:
                borrowed.append(self)
        return value

    def _forget(self) -> None:
        self._value = None


@contextmanager
def large_arrays_freed() -> Iterator[None]:
    """Large arrays computed inside are forgotten at the end, and computed anew if asked for again.

    Within, every array is computed once; a plan's many maps share their parts, so that matters.
    """
    borrowed: list[Deferred] = []
    token = _borrowed.set(borrowed)
    try:
        yield
    finally:
        _borrowed.reset(token)
        for deferred in borrowed:
            deferred._forget()
