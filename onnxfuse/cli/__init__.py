"""The command line: parsing and printing only."""

from __future__ import annotations

import click

from onnxfuse._version import __version__
from onnxfuse.cli.benching import bench
from onnxfuse.cli.checking import check
from onnxfuse.cli.compressing import compress
from onnxfuse.cli.exporting import export
from onnxfuse.cli.group import Group
from onnxfuse.cli.optimizing import inspect, optimize
from onnxfuse.cli.quantizing import quantize

__all__ = ["main"]


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="onnxfuse")
@click.pass_context
def main(context: click.Context) -> None:
    """Collapse multi-branch regions of ONNX models into single nodes, with a proof for each."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (optimize, inspect, export, check, bench, compress, quantize):
    main.add_command(command)
