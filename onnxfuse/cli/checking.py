"""`onnxfuse check`."""

from __future__ import annotations

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
    from onnxfuse.parity import CheckResult
    from onnxfuse.pipeline import OptimizeResult

DIFFER = 1


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path), required=False)
@providers_option
@size_option
@inputs_option
@click.option("--bisect", is_flag=True, help="Name the first tensor where the two part.")
@click.option(
    "--min-snr",
    type=float,
    metavar="DB",
    help="For approximations, such as int8 models: they agree where every floating output has this "
    "signal to noise ratio, on --inputs or on noise.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the inputs.",
)
@optimization_option
@threads_option
@tf32_option
@json_option
@report_option
@quiet_option
def check(
    first: Path,
    second: Path | None,
    providers: tuple[str, ...],
    sizes: tuple[str, ...],
    inputs: Path | None,
    bisect: bool,
    min_snr: float | None,
    seed: int,
    optimization: Any,
    threads: int | None,
    tf32: bool,
    json_path: Path | None,
    report_path: Path | None,
    quiet: bool,
) -> int:
    """Compare SECOND with FIRST on the same inputs, and tell rounding from errors.

    With --min-snr, tell whether SECOND comes near enough. Without SECOND, FIRST is optimized in
    memory and compared with the result. Exit code 0: they agree; 1: they differ; 2: they cannot
    be compared.
    """
    from onnxfuse.parity import check as run
    from onnxfuse.parity.terminal import show_check
    from onnxfuse.pipeline import optimize
    from onnxfuse.runtime import parse_sizes
    from onnxfuse.runtime.providers import require_providers

    models = filter(None, (first, second))
    written = Written(None, json_path, *filter(None, (inputs,)), models=models, report=report_path)
    require_providers(providers)
    with progress(quiet) as tell:
        folded = optimize(first, progress=tell) if second is None else None
        result = run(
            first,
            folded or second,
            providers=providers,
            sizes=parse_sizes(sizes),
            inputs=inputs,
            seed=seed,
            optimization=optimization,
            threads=threads,
            tf32=tf32,
            bisect=bisect,
            min_snr=min_snr,
            progress=tell,
        )
    written.write(result.to_json(), lambda path: None, lambda: _page(result, folded))
    show_check(written.console(quiet), result)
    return 0 if result.agrees else DIFFER


def _page(result: CheckResult, folded: OptimizeResult | None) -> str:
    from onnxfuse.report.html import check_page

    return check_page(result, folded)
