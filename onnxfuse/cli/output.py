"""Where commands write, and how they show that they are at work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onnxfuse.errors import ModelError
from onnxfuse.report.markup import escape

if TYPE_CHECKING:
    from onnxfuse.io import Source


class Written:
    """Where a command writes its model, its JSON and its page; checked before the work begins.

    None of them is one of the `inputs`, or of the `models` and the files with their data.
    """

    def __init__(
        self,
        output: Path | None,
        json_path: Path | None,
        *inputs: Path,
        models: Iterable[Path] = (),
        report: Path | None = None,
    ) -> None:
        from onnxfuse import io

        self.to_stdout = str(json_path) == "-"
        self.json_file = None if self.to_stdout else json_path
        self.output, self.report = output, report
        found: list[Path] = []
        external = False
        if any((output, self.json_file, report)):
            for path in inputs:
                found += [path, *path.glob("**/*.pb")]
            for path in models:
                found.append(path)
                if (source := _readable(path)) is not None:
                    external |= source.external
                    found += source.files
        self.inputs = tuple(found)
        targets: set[Path] = set()
        for path in filter(None, (output, self.json_file, report)):
            target = io.check_target(path, *self.inputs)
            if target in targets:
                raise click.UsageError(f"two results cannot both be written to {path}")
            targets.add(target)
            if path is output:
                targets.add(Path(os.path.realpath(io.data_name(target))))
                if external:
                    io.check_data_target(target, *self.inputs)

    def write(
        self,
        report: str,
        save: Callable[[Path], None],
        page: Callable[[], str] | None = None,
    ) -> None:
        """Writes what was asked for.

        Args:
            report: The report as JSON, which goes to standard output if that is asked.
            save: Writes the model.
            page: Makes the report as HTML.
        """
        from onnxfuse import io

        texts = {} if self.json_file is None else {self.json_file: report + "\n"}
        if page is not None and self.report is not None:
            texts[self.report] = page()
        with io.texts_behind(texts, *self.inputs):
            if self.output is not None:
                save(self.output)
        if self.to_stdout:
            click.echo(report)

    def console(self, quiet: bool) -> Console:
        """Standard output, or stderr where the JSON is on standard output."""
        return Console(stderr=self.to_stdout, quiet=quiet, soft_wrap=False)


def _readable(model: Path) -> Source | None:
    """What is in a model's file; None where it cannot be read, or only once."""
    from onnxfuse import io

    if model.is_file():
        with suppress(ModelError):  # said where it is read for use
            return io.read(model)
    return None


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
