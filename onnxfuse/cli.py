"""The command line: parsing and printing only."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onnxfuse._version import __version__
from onnxfuse.errors import CertificateError, OnnxfuseError

UNUSABLE, UNPROVED = 2, 3


class _Group(click.Group):
    """Commands whose errors are one line on stderr."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The program: reached from the shell, not when a test calls `main` below."""
        gc.disable()  # one model and out: collecting would only walk its nodes again and again
        return super().__call__(*args, **kwargs)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            _fail(error.format_message(), UNUSABLE)
        except click.exceptions.Abort:
            _fail("interrupted", UNUSABLE)
        except CertificateError as error:
            _fail(str(error), UNPROVED)
        except OnnxfuseError as error:
            _fail(str(error), UNUSABLE)
        sys.exit(code or 0)


def _fail(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())  # and names from a file may hold anything
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    click.echo(f"onnxfuse: {shown}", err=True)
    sys.exit(code)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="onnxfuse")
@click.pass_context
def main(context: click.Context) -> None:
    """Collapse multi-branch regions of ONNX models into single nodes, with a proof for each."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_model = click.argument("model", type=click.Path(path_type=Path))
_json = click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the report as JSON; '-' is standard output.",
)
_quiet = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
_skip = click.option(
    "--skip",
    multiple=True,
    metavar="OPERATOR",
    help="Leave out the rule for an operator; may be given several times.",
)
_keep = click.option(
    "--keep",
    multiple=True,
    metavar="TENSOR",
    help="Keep a tensor under its name; may be given several times.",
)


@main.command()
@_model
@click.option(
    "--output",
    "-o",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to write; default: MODEL's name with .fused.onnx.",
)
@_json
@_quiet
@_skip
@_keep
def optimize(
    model: Path,
    output: Path | None,
    json_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    """Fold MODEL and write the result; MODEL itself is not touched."""
    beside = model.parent / f"{model.name.removesuffix('.onnx')}.fused.onnx"
    _run(model, output or beside, json_path, quiet, skip, keep)


@main.command()
@_model
@_json
@_quiet
@_skip
@_keep
def inspect(
    model: Path, json_path: Path | None, quiet: bool, skip: tuple[str, ...], keep: tuple[str, ...]
) -> None:
    """Show what optimize would do with MODEL, and write no model."""
    _run(model, None, json_path, quiet, skip, keep)


def _run(
    model: Path,
    output: Path | None,
    json_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    from onnxfuse import io
    from onnxfuse.pipeline import optimize as run
    from onnxfuse.report.terminal import show

    to_stdout = str(json_path) == "-"
    json_file = None if to_stdout else json_path
    console = Console(stderr=to_stdout, quiet=quiet, soft_wrap=False)
    targets = [io.check_target(path, model) for path in (output, json_file) if path is not None]
    if len(set(targets)) < len(targets):
        raise click.UsageError(f"the model and the report cannot both be written to {output}")
    with _progress(quiet) as tell:
        result = run(model, skip=skip, keep=keep, progress=tell)
        tell("writing")
        if json_file is not None:
            io.write_text(result.report.to_json() + "\n", json_file, model)
        if output is not None:
            result.save(output)
    if to_stdout:
        click.echo(result.report.to_json())
    show(console, result.report, model, output)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner and the step at work, on stderr, gone when done; nothing where nobody looks."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    nobody = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=nobody) as bar:
        task = bar.add_task("reading", total=None)

        def tell(step: str) -> None:
            bar.update(task, description=step)

        yield tell
