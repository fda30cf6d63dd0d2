"""The networks of models/ against what users would pick instead of onnxfuse, in turn in one run.

Contestants: the training form as it is, onnxsim, onnxslim, onnxoptimizer, onnxscript's optimizer
and rewriter, ONNX Runtime's own offline optimization, onnxfuse, the authors' deploy form, PyTorch
eager and torch.compile on the deploy form. ONNX Runtime's own optimizations are on for all models.
What fails, hangs or is not installed is named in the table.

python -m scripts.bench_zoo                               all networks, one thread
python -m scripts.bench_zoo --only mobileone_s0           networks with that in their names
python -m scripts.bench_zoo --output results              results/zoo.md and results/zoo.json
python -m scripts.bench_zoo --only three_branch --quick   few rounds, only to see that it works
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch

from models import ZOO, build, reparameterize
from models.exporting import export
from onnxfuse.benchmark.binding import caller
from onnxfuse.benchmark.machine import describe
from onnxfuse.benchmark.memory import ModelFile
from onnxfuse.benchmark.rounds import Runner, measure, timed
from onnxfuse.benchmark.settings import Settings
from onnxfuse.benchmark.statistics import median_of_blocks, paired_ratio
from onnxfuse.errors import OnnxfuseError
from onnxfuse.runtime import Feeds, Session
from scripts.contestants import CONTESTANTS, prepare
from scripts.pytorch_runner import PyTorchRunner, RunnerError
from scripts.zoo_table import Outcome, Row, geometric_means, markdown

TRAINING, DEPLOY = "training form", "deploy form"
PYTORCH = {"PyTorch eager": "eager", "torch.compile": "compile"}
TOLERANCE = 1e-3
"""Relative L2 distance from the training form beyond which a model computes something else."""
NAMES = (TRAINING, *CONTESTANTS, DEPLOY, *PYTORCH)


def bench_network(network: str, names: Sequence[str], options: argparse.Namespace) -> Row:
    """All contestants on one network, in turn."""
    shape = ZOO[network].input_shape
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = _files(network, names, Path(folder), options, failures)
        pytorch: dict[str, Runner] = {}
        for name in names:
            if name in PYTORCH:
                tell(f"{network}: {name}")
                try:
                    runner = PyTorchRunner(network, PYTORCH[name], options.threads, options.limit)
                except RunnerError as error:
                    failures[name] = str(error)
                else:
                    pytorch[name] = stack.enter_context(runner)
        settings = Settings("CPUExecutionProvider", "all", options.threads)
        feeds = {"input": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        nodes = {name: len(onnx.load(file).graph.node) for name, file in files.items()}
        sound = _sound(files, settings, feeds, failures)
        rng = np.random.default_rng(0)

        def runners() -> list[Runner]:
            opened: dict[str, Runner] = {}
            for name in map(str, rng.permutation(list(sound))):
                session = settings.open(ModelFile(sound[name], name))
                opened[name] = timed(caller(session, feeds))
            return [*(opened[name] for name in sound), *pytorch.values()]

        blocks = measure(
            runners(),
            rounds=options.rounds,
            budget=options.budget,
            renew=runners,
            progress=lambda done, total: tell(f"{network}: {done} of {total} rounds"),
        )
    times = dict(zip([*sound, *pytorch], blocks, strict=True))
    outcomes = {}
    for name in names:
        if name in times:
            ratio = paired_ratio(times[TRAINING], times[name])
            outcomes[name] = Outcome(nodes.get(name), median_of_blocks(times[name]), ratio)
        else:
            outcomes[name] = Outcome(nodes.get(name), failure=failures[name])
    return Row(network, shape, outcomes)


def _files(
    network: str,
    names: Sequence[str],
    folder: Path,
    options: argparse.Namespace,
    failures: dict[str, str],
) -> dict[str, Path]:
    """The model of each contestant that gives one; why others do not goes into `failures`."""
    tell(f"{network}: exporting")
    files = {TRAINING: folder / "training.onnx"}
    image, module = torch.zeros(ZOO[network].input_shape), build(network)
    onnx.save(export(module, image, options.form, dynamic=False), files[TRAINING])
    for name in names:
        path = folder / f"{name}.onnx"
        if name == DEPLOY:
            onnx.save(export(reparameterize(module), image, options.form, dynamic=False), path)
            files[name] = path
        elif name in CONTESTANTS:
            tell(f"{network}: {name}")
            failure = prepare(name, files[TRAINING], path, options.limit)
            if failure:
                failures[name] = failure
            else:
                files[name] = path
    return {name: files[name] for name in names if name in files}


def _sound(
    files: Mapping[str, Path], settings: Settings, feeds: Feeds, failures: dict[str, str]
) -> dict[str, Path]:
    """The models that load, run, and compute what the training form does."""
    expected = _outputs(settings.open(ModelFile(files[TRAINING], TRAINING)), feeds)
    sound = {}
    for name, file in files.items():
        try:
            found = _outputs(settings.open(ModelFile(file, name)), feeds)
        except OnnxfuseError as error:
            failures[name] = f"failed: {error}"
            continue
        distance = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        if distance <= TOLERANCE:
            sound[name] = file
        else:
            failures[name] = f"differs: relative L2 distance {distance:.1e} from the training form"
    return sound


def _outputs(session: Session, feeds: Feeds) -> np.ndarray:
    return np.concatenate([output.ravel() for output in session.run(feeds)]).astype(np.float64)


def tell(step: str) -> None:
    """Shows the step at work, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{step}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints Markdown, and writes it with the same as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--contestants", help=f"some of: {', '.join(NAMES[1:])}; with commas")
    parser.add_argument("--rounds", type=int, help="default: what fits into the budget")
    parser.add_argument("--budget", type=float, default=30, help="seconds of rounds per network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60, help="seconds that a contestant gets")
    parser.add_argument("--form", default="dynamo", choices=("dynamo", "script", "script_unfolded"))
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--output", type=Path, help="folder for zoo.md and zoo.json")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 2
    networks = [name for name in ZOO if options.only in name]
    chosen = NAMES[1:] if options.contestants is None else options.contestants.split(",")
    unknown = [name for name in chosen if name not in NAMES]
    if not networks or unknown:
        parser.error(f"no contestant is called {unknown[0]!r}" if unknown else "no such network")
    names = [name for name in NAMES if name == TRAINING or name in chosen]
    rows = []
    for network in networks:
        rows.append(bench_network(network, names, options))
        tell("")
        if options.output:
            _write(rows, options)
    print(markdown(rows, _setting(options)))


def _write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Writes after each network, so that what is measured is not lost."""
    options.output.mkdir(parents=True, exist_ok=True)
    means, common = geometric_means(rows)
    result = {
        "machine": describe(),
        "threads": options.threads,
        "form": options.form,
        "networks": [asdict(row) for row in rows],
        "geometric_means": means,
        "geometric_means_over": common,
    }
    text = json.dumps(result, indent=2, allow_nan=False)
    (options.output / "zoo.json").write_text(text + "\n", encoding="utf-8")
    table = markdown(rows, _setting(options))
    (options.output / "zoo.md").write_text(table, encoding="utf-8")


def _setting(options: argparse.Namespace) -> str:
    machine: Mapping[str, str] = describe()
    threads = f"{options.threads} thread{'s' * (options.threads != 1)}"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; {threads}; ONNX "
        f"Runtime {machine['onnxruntime']}, torch {torch.__version__}; networks exported as "
        f"{options.form}; medians in turn, ratios round by round."
    )


if __name__ == "__main__":
    main()
