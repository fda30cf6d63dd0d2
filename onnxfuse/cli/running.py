"""Options of the commands that run models."""

from __future__ import annotations

from pathlib import Path

import click

providers_option = click.option(
    "--providers",
    "-p",
    multiple=True,
    default=("cpu",),
    show_default=True,
    metavar="NAMES",
    help="Execution providers: cpu, cuda, or any other that ONNX Runtime knows; with commas.",
)
size_option = click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=EXTENT",
    help="Extent of a symbolic dimension, such as height=480,width=640.",
)
inputs_option = click.option(
    "--inputs",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Inputs: an .npz, or a folder of ONNX test data (input_0.pb and so on).",
)
optimization_option = click.option(
    "--optimization",
    type=click.Choice(["off", "basic", "extended", "layout", "all"]),
    default="all",
    show_default=True,
    help="How far ONNX Runtime's own optimizer goes.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1, max=1 << 12),
    metavar="N",
    help="Threads within an operator; default: ONNX Runtime's choice.",
)
tf32_option = click.option(
    "--tf32", is_flag=True, help="On CUDA, let products in float32 be computed in TF32."
)
