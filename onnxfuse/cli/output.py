"""Where commands write, and how they show that they are at work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
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


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner and the step at work, on stderr, gone when done; nothing where nobody looks."""
    console = Console(file=sys.stderr)  # this one, also while an exporter is silenced
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    nobody = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=nobody) as bar:
        task = bar.add_task("reading", total=None)

        def tell(step: str) -> None:
            bar.update(task, description=step)

        yield tell
