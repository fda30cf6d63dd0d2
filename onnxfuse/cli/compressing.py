"""`onnxfuse compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxfuse.cli.options import json_option, model_argument, quiet_option, report_option
from onnxfuse.cli.output import Written, progress
from onnxfuse.cli.running import size_option
from onnxfuse.cli.sampling import FORMS, files_of, pixel_options, pixels_of


@click.command()
@model_argument
@click.option(
    "--output",
    "-o",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to write; default: MODEL's name with .compressed.onnx.",
)
@click.option(
    "--bits",
    type=click.Choice(["2", "3", "4", "8"]),
    help="Bits of the integers; default: 4. 3 take 4 in the file: ONNX has no type for them.",
)
@click.option(
    "--block",
    type=click.Choice(["16", "32", "64", "128", "256"]),
    default="32",
    show_default=True,
    help="Most values that share a scale.",
)
@click.option("--zero-point", is_flag=True, help="Give each block a zero point too.")
@click.option(
    "--channel-shift", is_flag=True, help="Give each output channel a scale and a shift too."
)
@click.option(
    "--scales",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="How scales are stored.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    metavar="ERROR",
    help="Choose bits (2, 4, 8, or float) by weight: outputs may be off by this, relative L2.",
)
@click.option(
    "--calibration",
    "-c",
    metavar="DATA",
    help=f"Samples on which outputs are compared; default: random numbers. {FORMS.capitalize()}",
)
@size_option
@pixel_options
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME",
    help="Leave a weight or a layer in float, by its name once folded; several times.",
)
@click.option(
    "--fold/--no-fold", default=True, show_default=True, help="Fold the model first, as optimize."
)
@json_option
@report_option
@quiet_option
def compress(
    model: Path,
    output: Path | None,
    bits: str | None,
    block: str,
    zero_point: bool,
    channel_shift: bool,
    scales: Any,
    budget: float | None,
    calibration: str | None,
    sizes: tuple[str, ...],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    bgr: bool,
    keep: tuple[str, ...],
    fold: bool,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
) -> None:
    """Store MODEL's weights as integers with a scale for each block; MODEL is not touched.

    Any runtime of opset 21 (25 for 2 bits) loads the result: it is ONNX's own DequantizeLinear.
    """
    from onnxfuse.compression import compress as run
    from onnxfuse.compression.terminal import show_compress
    from onnxfuse.runtime import parse_sizes

    if budget is not None and bits is not None:
        raise click.UsageError("--budget chooses the bits: it goes without --bits")
    target = output or model.parent / f"{model.name.removesuffix('.onnx')}.compressed.onnx"
    files = files_of([calibration], [target, json_path, report_path])
    written = Written(target, json_path, *files, models=[model], report=report_path)
    settled = parse_sizes(sizes)
    with progress(quiet) as tell:
        result = run(
            model,
            bits=None if bits is None else int(bits),
            block=int(block),
            zero_point=zero_point,
            channel_shift=channel_shift,
            scales=scales,
            budget=budget,
            samples=calibration,
            sizes=settled,
            pixels=pixels_of(mean, std, bgr),
            keep=keep,
            fold=fold,
            progress=tell,
        )
        tell("writing")
        written.write(result.report.to_json(), result.save, lambda: result.page(model.name))
    show_compress(written.console(quiet), result.report, model, target)
