"""The group of commands: errors as one line and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any, NoReturn

import click

from onnxfuse.errors import CertificateError, OnnxfuseError, ParityError

UNUSABLE, UNPROVED = 2, 3


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
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on; the last flush is quiet
            code = 0
        sys.exit(code or 0)


def _stop(number: int, _: object) -> NoReturn:
    """Leaves through every clean-up on the way, with the exit code of a process so stopped."""
    sys.exit(128 + number)


def _fail(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())  # and names from a file may hold anything
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    click.echo(f"onnxfuse: {shown}", err=True)
    sys.exit(code)
