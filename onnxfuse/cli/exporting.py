"""`onnxfuse export`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click

from onnxfuse.cli.options import json_option, quiet_option
from onnxfuse.cli.output import Written, progress
from onnxfuse.errors import ExportWarning


@click.command()
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
@json_option
@quiet_option
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
    Written(output, json_path, *filter(None, (target_file(target), checkpoint)))
    with _stdout_aside(), searching(target), progress(quiet) as tell, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExportWarning)  # they are shown below
        tell("loading")
        loaded = load(target, arguments, checkpoint, inputs, seed)
        written = Written(output, json_path, *filter(None, (target_file(target), checkpoint)))
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
