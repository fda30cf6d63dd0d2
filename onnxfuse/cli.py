"""The command line: parsing and printing only."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onnxfuse._version import __version__
from onnxfuse.errors import CertificateError, ExportWarning, OnnxfuseError, ParityError

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


@main.command()
@click.argument("target")
@click.option(
    "--output",
    "-o",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to write.",
)
@click.option("--arg", "arguments", multiple=True, metavar="K=V", help="Argument of the factory.")
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Weights: a state_dict, or safetensors.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]SHAPE[:DTYPE]",
    help="An input, such as 1x3x224x224 or 1x16:int64; one for each.",
)
@click.option(
    "--dynamic",
    multiple=True,
    metavar="NAMES",
    help="Dynamic axes: batch,height,width (length, depth), or by input: image=0:batch,2:rows.",
)
@click.option("--opset", type=click.IntRange(min=1), help="Opset; default: the exporter's.")
@click.option(
    "--exporter",
    type=click.Choice(["dynamo", "script"]),
    help="Default: torch's default exporter, and the other where it fails.",
)
@click.option("--optimize", "folded", is_flag=True, help="Fold the model before it is written.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of weights and of the inputs.",
)
@click.option("--no-check", is_flag=True, help="Do not run the model against PyTorch.")
@_json
@_quiet
def export(
    target: str,
    output: Path,
    arguments: tuple[str, ...],
    checkpoint: Path | None,
    inputs: tuple[str, ...],
    dynamic: tuple[str, ...],
    opset: int | None,
    exporter: Any,
    folded: bool,
    seed: int,
    no_check: bool,
    json_path: Path | None,
    quiet: bool,
) -> None:
    """Export a PyTorch module as an ONNX model, and run both on the same inputs.

    TARGET is package.module:factory, path/file.py:factory, or a program of torch.export in a .pt2
    file. Its code runs: export nothing that you do not trust.
    """
    from onnxfuse.exporter import export as run
    from onnxfuse.exporter.inputs import parse_dynamic
    from onnxfuse.exporter.loading import load
    from onnxfuse.exporter.target import searching, target_file
    from onnxfuse.exporter.terminal import show_export

    axes = parse_dynamic(dynamic)
    _Written(output, json_path, *filter(None, (target_file(target), checkpoint)))
    with _stdout_aside(), searching(target), _progress(quiet) as tell, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExportWarning)  # they are shown below
        tell("loading")
        loaded = load(target, arguments, checkpoint, inputs, seed)
        written = _Written(output, json_path, *filter(None, (target_file(target), checkpoint)))
        result = run(
            loaded.module,
            loaded.args,
            input_names=loaded.input_names,
            dynamic=axes,
            opset=opset,
            exporter=exporter,
            optimize=folded,
            check=not no_check,
            progress=tell,
        )
    written.write(result.to_json(), result.save)
    show_export(written.console(quiet), result, target, output)


@contextmanager
def _stdout_aside() -> Iterator[None]:
    """Standard output is ours: what a module prints goes to stderr, what C++ prints nowhere."""
    sys.stdout.flush()
    with open(os.devnull, "wb") as nowhere, ExitStack() as stack:
        with suppress(OSError):  # standard output may be closed
            kept = os.dup(1)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 1)
            os.dup2(nowhere.fileno(), 1)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


class _Written:
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


def _run(
    model: Path,
    output: Path | None,
    json_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    from onnxfuse.pipeline import optimize as run
    from onnxfuse.report.terminal import show

    written = _Written(output, json_path, model)
    with _progress(quiet) as tell:
        result = run(model, skip=skip, keep=keep, progress=tell)
        tell("writing")
        written.write(result.report.to_json(), result.save)
    show(written.console(quiet), result.report, model, output)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner and the step at work, on stderr, gone when done; nothing where nobody looks."""
    console = Console(file=sys.stderr)  # this one, also while an exporter is silenced
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    nobody = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=nobody) as bar:
        task = bar.add_task("reading", total=None)

        def tell(step: str) -> None:
            bar.update(task, description=step)

        yield tell
