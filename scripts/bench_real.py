"""Pretrained models as they are, after other optimizers, and after onnxfuse, in turn in one run.

ONNX Runtime's own optimizations are on for all of them while they are timed, and off while they are
compared. Errors are those of the logits: outputs behind a Sigmoid or a Softmax at the end are
almost 0 nearly everywhere, so the model is cut in front of it.

python -m scripts.bench_real                        the models that the tests install
python -m scripts.bench_real model.onnx ...         any model; symbolic: batch 1, extents 224
python -m scripts.bench_real --output results       also results/real.md
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import onnxfuse
from onnxfuse.benchmark.machine import describe
from scripts.bench_latency import Case, real_models
from scripts.contestants import CONTESTANTS, prepare

OURS = "onnxfuse"
LAST = frozenset({"Sigmoid", "Softmax"})
COLUMNS = (
    "model",
    "input",
    "nodes",
    "original, ms",
    "best other",
    "onnxfuse, ms",
    "speedup (95%)",
    "logits: off the original by",
    "original, onnxfuse off float64 by",
)


@dataclass(frozen=True)
class Errors:
    """Relative L2 distances of the logits.

    Attributes:
        between: Of our model from the original.
        before: Of the original from float64.
        after: Of ours from float64.
    """

    between: float
    before: float
    after: float


def logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the Sigmoid or Softmax that makes an output."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    makers = {name: node for node in cut.graph.node for name in node.output}
    for output in cut.graph.output:
        maker = makers.get(output.name)
        if maker is not None and maker.op_type in LAST:
            output.name = maker.input[0]
            output.type.tensor_type.ClearField("shape")
    return cut


def errors(model: onnx.ModelProto, inputs: Path | None, threads: int) -> Errors:
    """How far our model's logits are from the original's, and both from float64."""
    cut = logits(model)
    found = onnxfuse.check(
        cut,
        onnxfuse.optimize(cut),
        inputs=inputs,
        threads=threads,
        optimization="off",
    )
    between = [o.closeness.relative_l2 for o in found.outputs if o.closeness is not None]
    return Errors(
        max(between),
        max(output.first_error for output in found.outputs),
        max(output.second_error for output in found.outputs),
    )


def row(case: Case, names: Sequence[str], options: argparse.Namespace) -> list[str]:
    """One model, measured."""
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.onnx"
        onnx.save(case.model, original)
        files, failed = {"original": original}, []
        for name in names:
            path = Path(folder) / f"{name}.onnx"
            failure = prepare(name, original, path, options.limit)
            if failure:
                failed.append(f"{name} {failure.partition(':')[0]}")
            else:
                files[name] = path
        inputs = None
        if case.shape is not None:
            inputs = Path(folder) / "image.npz"
            np.savez(inputs, np.random.default_rng(0).random(case.shape, dtype=np.float32))
        measured = onnxfuse.bench(
            files, inputs=inputs, rounds=options.rounds, threads=options.threads, memory=False
        )
        off = errors(case.model, inputs, options.threads)
        nodes = {name: len(onnx.load(file).graph.node) for name, file in files.items()}
    times = {timing.model: timing for timing in measured.timings}
    others = [timing for name, timing in times.items() if name not in ("original", OURS)]
    best = max(others, key=lambda timing: timing.ratio.value, default=None)
    told = [f"{best.model} {best.ratio.value:.2f}x"] if best is not None else []
    ours = times[OURS]
    return [
        case.name,
        "x".join(map(str, next(iter(ours.shapes.values())))),
        f"{nodes['original']} -> {nodes[OURS]}",
        f"{1000 * times['original'].latency.value:.2f}",
        "; ".join([*told, *failed]),
        f"{1000 * ours.latency.value:.2f}",
        f"{ours.ratio.value:.2f} ({ours.ratio.low:.2f}-{ours.ratio.high:.2f})",
        f"{off.between:.1e}",
        f"{off.before:.1e}, {off.after:.1e}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--rounds", type=int, help="default: what fits into 10 s")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60, help="seconds that an optimizer gets")
    parser.add_argument("--others", default=",".join(CONTESTANTS), help="optimizers; with commas")
    parser.add_argument("--output", type=Path, help="folder for real.md")
    options = parser.parse_args(arguments)
    names = [name for name in options.others.split(",") if name in CONTESTANTS and name != OURS]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    given = [Case(path.stem, onnx.load(path), None) for path in options.models]
    for case in given or real_models(options.only):
        lines.append(row(case, [*names, OURS], options))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = ", ".join(f"{key}: {value}" for key, value in describe().items())
    print(f"{table}\n\n{about}; threads: {options.threads}")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "real.md").write_text(f"{table}\n\n{about}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
