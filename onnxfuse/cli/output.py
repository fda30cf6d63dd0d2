"""Where commands write, and how they show that they are at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Written:
    """Where a command writes its model and its report as JSON; checked before the work begins."""

    def __init__(self, output: Path | None, json_path: Path | None, *inputs: Path) -> None:
        from onnxfuse import io

        self.to_stdout = str(json_path) == "-"
        self.json_file = None if self.to_stdout else json_path
        self.output, self.inputs = output, inputs
        paths = [path for path in (output, self.json_file) if path is not None]
        targets = [io.check_target(path, *inputs) for path in paths]
        if len(set(targets)) < len(targets):
            raise click.UsageError(f"the model and the report cannot both be written to {output}")

    def write(self, report: str, save: Callable[[Path], None]) -> None:
        """Writes the report and the model; the report goes to standard output if that is asked."""
        from onnxfuse import io

        if self.json_file is not None:
            io.write_text(report + "\n", self.json_file, *self.inputs)
        if self.output is not None:
            save(self.output)
        if self.to_stdout:
            click.echo(report)

    def console(self, quiet: bool) -> Console:
        """Standard output, or stderr where the JSON is on standard output."""
        return Console(stderr=self.to_stdout, quiet=quiet, soft_wrap=False)


class Tell(Protocol):
    """Shows the step at work, and how much of it is done where that is known."""

    def __call__(self, step: str, done: int = 0, total: int | None = None) -> None:
        """Shows a step."""


@contextmanager
def progress(quiet: bool, *, steady: bool = False) -> Iterator[Tell]:
    """The step at work and a bar, on stderr, gone when done; nothing where nobody looks.

    Args:
        quiet: Whether to show nothing.
        steady: Whether it moves only when it is told something, so that nothing runs beside what
            is being timed.
    """
    console = Console(file=sys.stderr)  # this one, also while an exporter is silenced
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    nobody = quiet or not console.is_terminal
    with Progress(
        *columns, console=console, transient=True, disable=nobody, auto_refresh=not steady
    ) as bar:
        task = bar.add_task("reading", total=None)
        shown = 0.0

        def tell(step: str, done: int = 0, total: int | None = None) -> None:
            nonlocal shown
            now = time.monotonic()
            due = steady and (done == 0 or now - shown > 0.1)
            shown = now if due else shown
            bar.update(task, description=escape(step), completed=done, total=total, refresh=due)

        yield tell
