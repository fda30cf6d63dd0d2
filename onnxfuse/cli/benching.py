"""`onnxfuse bench`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxfuse.cli.options import json_option, quiet_option, report_option
from onnxfuse.cli.output import Written, progress
from onnxfuse.cli.running import (
    inputs_option,
    optimization_option,
    providers_option,
    size_option,
    tf32_option,
    threads_option,
)

if TYPE_CHECKING:
    from onnxfuse.benchmark import BenchResult


def _batches(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[int]:
    parts = [part.strip() for text in texts for part in text.split(",")]
    for part in parts:
        if not re.fullmatch(r"0*[1-9]\d{0,8}", part):
            raise click.BadParameter(f"{part!r} is no batch size: write --batch 1,8")
    return list(map(int, parts))


@click.command()
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path)
)
@providers_option
@threads_option
@click.option(
    "--batch",
    "batches",
    multiple=True,
    metavar="N",
    callback=_batches,
    help="Batch size, where it is symbolic; several with commas. Default: 1.",
)
@size_option
@inputs_option
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rounds in which each model has a turn; default: 20 to 200, in about 10 s.",
)
@click.option(
    "--warm-up",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="Runs of each model before the first round.",
)
@optimization_option
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    help="Entry of the sessions' configuration, such as session.disable_quant_qdq=1; may be given "
    "several times.",
)
@click.option("--profile", is_flag=True, help="Tell which operators the time goes to.")
@tf32_option
@json_option
@report_option
@quiet_option
def bench(
    models: tuple[Path, ...],
    providers: tuple[str, ...],
    threads: int | None,
    batches: list[int],
    sizes: tuple[str, ...],
    inputs: Path | None,
    rounds: int | None,
    warm_up: int,
    optimization: Any,
    config: tuple[str, ...],
    profile: bool,
    tf32: bool,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
) -> None:
    """Measure how fast models are, in turn, against the first of them.

    All get the same inputs. Symbolic dimensions behind the batch are 224, or what works, unless
    --size says otherwise.
    """
    from onnxfuse.benchmark import bench as run
    from onnxfuse.benchmark.terminal import show_bench
    from onnxfuse.runtime import parse_sizes
    from onnxfuse.runtime.config import parse_config

    written = Written(None, json_path, *filter(None, (inputs,)), models=models, report=report_path)
    with progress(quiet, steady=True) as tell:
        result = run(
            models,
            providers=providers,
            batches=batches,
            sizes=parse_sizes(sizes),
            inputs=inputs,
            threads=threads,
            optimization=optimization,
            rounds=rounds,
            warm_up=warm_up,
            profile=profile,
            tf32=tf32,
            config=parse_config(config),
            progress=tell,
        )
    written.write(result.to_json(), lambda path: None, lambda: _page(result))
    show_bench(written.console(quiet), result)


def _page(result: BenchResult) -> str:
    from onnxfuse.report.html import bench_page

    return bench_page(result)
