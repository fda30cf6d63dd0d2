"""torch, imported when it is needed: the rest of onnxfuse works without it."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from onnxfuse.errors import ModelError


class ExportError(Exception):
    """An exporter did not give a model that can be used; the message is one line."""


_TALKATIVE = ("torch", "onnxscript")


def require(name: str = "torch") -> Any:
    """The module `name`, imported; typed as anything, since torch need not be installed.

    Raises:
        ModelError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise ModelError(
            f"exporting needs the package {package}: pip install 'onnxfuse[export]'"
        ) from error


def said(error: BaseException) -> str:
    """The type of an exception and the first line that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Silences torch, which logs, warns and prints about itself and about what it traces."""
    names = [n for n in logging.root.manager.loggerDict if n.partition(".")[0] in _TALKATIVE]
    loggers = [logging.getLogger(name) for name in (*_TALKATIVE, *names)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
