"""`onnxfuse optimize` and `onnxfuse inspect`."""

from __future__ import annotations

from dataclasses import replace
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
@click.option(
    "--gate/--no-gate",
    default=True,
    show_default=True,
    envvar="ONNXFUSE_GATE",
    show_envvar=True,
    help="Run both models on the CPU, where that takes seconds, and say which is faster.",
)
def optimize(
    model: Path,
    output: Path | None,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
    gate: bool,
) -> None:
    """Fold MODEL and write the result; MODEL itself is not touched."""
    beside = model.parent / f"{model.name.removesuffix('.onnx')}.fused.onnx"
    is_seen = not quiet or json_path is not None or report_path is not None
    gate = gate and is_seen and model.is_file()
    _run(model, output or beside, json_path, report_path, quiet, skip, keep, gate)


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
    gate: bool = False,
) -> None:
    from onnxfuse.benchmark.gate import measured
    from onnxfuse.pipeline import optimize as run
    from onnxfuse.report.terminal import show

    written = Written(output, json_path, models=[model], report=report_path)
    with progress(quiet) as tell:
        result = run(model, skip=skip, keep=keep, progress=tell)
        if gate:
            tell("measuring")
            found = measured(model, result, lambda name: run(model, skip=[*skip, name], keep=keep))
            result = replace(result, report=replace(result.report, gate=found))
        tell("writing")
        written.write(result.report.to_json(), result.save, lambda: _page(result, model.name))
    show(written.console(quiet), result.report, model, output)


def _page(result: OptimizeResult, name: str) -> str:
    from onnxfuse.report.html import optimize_page

    return optimize_page(result, name)
