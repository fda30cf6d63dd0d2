"""`onnxfuse quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from onnxfuse.cli.running import size_option, threads_option
from onnxfuse.cli.sampling import FORMS, files_of, pixel_options, pixels_of

if TYPE_CHECKING:
    from onnxfuse.quantization import QuantizeResult


@click.command()
@model_argument
@click.option(
    "--calibration",
    "-c",
    required=True,
    metavar="DATA",
    help=f"Samples: {FORMS}",
)
@click.option(
    "--evaluation",
    "-e",
    metavar="DATA",
    help="Samples to compare the forms on; default: those of the calibration.",
)
@click.option(
    "--output",
    "-o",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to write; default: MODEL's name with .int8.onnx.",
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How the range of a tensor follows from its values.",
)
@click.option(
    "--weight-bits",
    type=click.Choice(["7", "8"]),
    help="Default: 7 where ONNX Runtime's int8 sums saturate on this machine, else 8.",
)
@click.option(
    "--equalize/--no-equalize",
    default=True,
    show_default=True,
    help="Balance the scales of channels between layers first.",
)
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Compare with the float model, and with int8 of its training form.",
)
@size_option
@pixel_options
@threads_option
@json_option
@report_option
@quiet_option
@skip_option
@keep_option
def quantize(
    model: Path,
    calibration: str,
    evaluation: str | None,
    output: Path | None,
    method: Any,
    weight_bits: str | None,
    equalize: bool,
    compare: bool,
    sizes: tuple[str, ...],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    bgr: bool,
    threads: int | None,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
    skip: tuple[str, ...],
    keep: tuple[str, ...],
) -> None:
    """Fold MODEL, bring it to int8, and compare; MODEL itself is not touched.

    --keep names tensors or nodes that stay float.
    """
    from onnxfuse.quantization import quantize as run
    from onnxfuse.quantization.terminal import show_quantize
    from onnxfuse.runtime import parse_sizes

    target = output or model.parent / f"{model.name.removesuffix('.onnx')}.int8.onnx"
    files = files_of([calibration, evaluation], [target, json_path, report_path])
    written = Written(target, json_path, *files, models=[model], report=report_path)
    settled = parse_sizes(sizes)
    with progress(quiet) as tell:
        result: QuantizeResult = run(
            model,
            calibration,
            evaluation=evaluation,
            method=method,
            weight_bits=None if weight_bits is None else int(weight_bits),
            keep=keep,
            skip=skip,
            sizes=settled,
            pixels=pixels_of(mean, std, bgr),
            threads=threads,
            equalize=equalize,
            compare=compare,
            progress=tell,
        )
        tell("writing")
        written.write(result.report.to_json(), result.save, lambda: result.page(model.name))
    show_quantize(written.console(quiet), result.report, model, target)
