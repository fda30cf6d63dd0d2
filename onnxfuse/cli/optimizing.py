"""`onnxfuse optimize` and `onnxfuse inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
from onnxfuse.cli.output import Tell, Written, progress
from onnxfuse.cli.running import threads_option

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
@click.option("--tune", is_flag=True, help="Measure each region's ways here, and take the fastest.")
@click.option(
    "--provider",
    metavar="NAME",
    help="With --tune: where to measure, cpu or cuda, or any other that ONNX Runtime knows.",
)
@threads_option
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="[NAME:]SHAPE",
    help="With --tune: at which shape of an input to measure, such as 1x3x224x224.",
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
    tune: bool,
    provider: str | None,
    threads: int | None,
    shapes: tuple[str, ...],
) -> None:
    """Fold MODEL and write the result; MODEL itself is not touched."""
    from onnxfuse.runtime import parse_shapes
    from onnxfuse.tuning import tune as run_tuned

    if not tune and (provider or threads or shapes):
        raise click.UsageError("--provider, --threads and --input-shape go with --tune")
    settled = parse_shapes(shapes)

    def tuned(skip: tuple[str, ...], tell: Tell) -> OptimizeResult:
        return run_tuned(
            model,
            provider=provider or "cpu",
            threads=threads,
            shapes=settled,
            skip=skip,
            keep=keep,
            progress=tell,
        )

    beside = model.parent / f"{model.name.removesuffix('.onnx')}.fused.onnx"
    is_seen = not quiet or json_path is not None or report_path is not None
    job = _Job(model, output or beside, json_path, report_path, quiet)
    job.run(
        tuned if tune else partial(_optimized, model, keep),
        skip,
        gate=gate and is_seen and not tune and model.is_file(),
        steady=tune,
    )


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
    job = _Job(model, None, json_path, report_path, quiet)
    job.run(partial(_optimized, model, keep), skip)


def _optimized(
    model: Path, keep: tuple[str, ...], skip: tuple[str, ...], tell: Tell
) -> OptimizeResult:
    from onnxfuse.pipeline import optimize as run

    return run(model, skip=skip, keep=keep, progress=tell)


@dataclass(frozen=True)
class _Job:
    """A model to optimize, and where the results go."""

    model: Path
    output: Path | None
    json_path: Path | None
    report_path: Path | None
    quiet: bool

    def run(
        self,
        optimized: Callable[[tuple[str, ...], Tell], OptimizeResult],
        skip: tuple[str, ...],
        *,
        gate: bool = False,
        steady: bool = False,
    ) -> None:
        """Optimizes, measures where that is asked for, writes and shows.

        Args:
            optimized: Optimizes, given what to skip.
            skip: What to skip.
            gate: Whether to measure the result against the model.
            steady: Whether nothing may run beside what is being done.
        """
        from onnxfuse.benchmark.gate import measured
        from onnxfuse.report.terminal import show

        model = self.model
        written = Written(self.output, self.json_path, models=[model], report=self.report_path)
        with progress(self.quiet, steady=steady) as tell:
            result = optimized(skip, tell)
            if gate:
                tell("measuring")
                found = measured(model, result, lambda step: optimized((*skip, step), tell))
                result = replace(result, report=replace(result.report, gate=found))
            tell("writing")
            written.write(result.report.to_json(), result.save, lambda: result.page(model.name))
        show(written.console(self.quiet), result.report, model, self.output)
