"""`onnxfuse optimize` and `onnxfuse inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfuse.cli.options import (
    json_option,
    keep_option,
    model_argument,
    quiet_option,
    report_option,
    skip_option,
)
from onnxfuse.cli.output import Written, progress

if TYPE_CHECKING:
    from onnxfuse.pipeline import OptimizeResult


@click.command()
@model_argument
@click.option(
    "--output",
    "-o",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to write; default: MODEL's name with .fused.onnx.",
)
@json_option
@report_option
@quiet_option
@skip_option
@keep_option
def optimize(
    model: Path,
    output: Path | None,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    """Fold MODEL and write the result; MODEL itself is not touched."""
    beside = model.parent / f"{model.name.removesuffix('.onnx')}.fused.onnx"
    _run(model, output or beside, json_path, report_path, quiet, skip, keep)


@click.command()
@model_argument
@json_option
@report_option
@quiet_option
@skip_option
@keep_option
def inspect(
    model: Path,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    """Show what optimize would do with MODEL, and write no model."""
    _run(model, None, json_path, report_path, quiet, skip, keep)


def _run(
    model: Path,
    output: Path | None,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    from onnxfuse.pipeline import optimize as run
    from onnxfuse.report.terminal import show

    written = Written(output, json_path, models=[model], report=report_path)
    with progress(quiet) as tell:
        result = run(model, skip=skip, keep=keep, progress=tell)
        tell("writing")
        written.write(result.report.to_json(), result.save, lambda: _page(result, model.name))
    show(written.console(quiet), result.report, model, output)


def _page(result: OptimizeResult, name: str) -> str:
    from onnxfuse.report.html import optimize_page

    return optimize_page(result, name)
