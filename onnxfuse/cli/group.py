"""The group of commands: errors as one line and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click

from onnxfuse.errors import CertificateError, OnnxfuseError, ParityError
from onnxfuse.printing import printable

UNUSABLE, UNPROVED = 2, 3
_CLICKS_BROKEN_PIPE = 1  # its exit code; commands return theirs
_LONGEST = 4000  # characters of a message


class Group(click.Group):
    """Commands whose errors are one line on stderr."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The program: reached from the shell, not when a test calls `main` below."""
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _stop)
        gc.disable()  # one model and out: collecting would only walk its nodes again and again
        return super().__call__(*args, **kwargs)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Runs a command and exits: with what it returns, or with the code of its error."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            _fail(error.format_message(), UNUSABLE)
        except click.exceptions.Abort:
            _fail("interrupted", UNUSABLE)
        except (CertificateError, ParityError) as error:
            _fail(str(error), UNPROVED)
        except OnnxfuseError as error:
            _fail(str(error), UNUSABLE)
        except OSError as error:  # the outputs of commands are files; this is standard output
            if not isinstance(error, BrokenPipeError):
                _fail(f"cannot print: {error.strerror}", UNUSABLE)
            code = _nobody_reads()
        except MemoryError:
            _fail("out of memory", UNUSABLE)
        except SystemExit as leaving:
            if leaving.code != _CLICKS_BROKEN_PIPE:
                raise
            code = _nobody_reads()
        sys.exit(code or 0)


def _nobody_reads() -> int:
    """Keeps the last flush quiet; the exit code of a program that was stopped by SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 128 + 13


def _stop(number: int, _: object) -> NoReturn:
    """Leaves through every clean-up on the way, with the exit code of a process so stopped."""
    sys.exit(128 + number)


def _fail(message: str, code: int) -> NoReturn:
    line = printable(_cut(" ".join(message.split())))  # names from a file may hold anything
    with suppress(OSError):
        click.echo(f"onnxfuse: {_cut(line)}", err=True)
    sys.exit(code)


def _cut(text: str) -> str:
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} .. {text[-half:]}"
