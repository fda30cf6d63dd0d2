"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

model_argument = click.argument("model", type=click.Path(path_type=Path))
json_option = click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the report as JSON; '-' is standard output.",
)
report_option = click.option(
    "--report",
    "report_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the report as a page of HTML.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
skip_option = click.option(
    "--skip",
    multiple=True,
    metavar="OPERATOR|STEP",
    help="Leave out an operator's rule, or a step such as phases; may be given several times.",
)
keep_option = click.option(
    "--keep",
    multiple=True,
    metavar="TENSOR",
    help="Keep a tensor under its name; may be given several times.",
)
