"""Latency of models before and after, in turn in one run, the runtime's own optimizations on.

Networks of models/ are measured in their authors' deploy form too.

python -m scripts.bench_latency              networks of models/ and those the tests install
python -m scripts.bench_latency model.onnx   any model; symbolic: batch 1, extents 224
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

import onnxfuse
from onnxfuse import BenchResult, OptimizeResult, Timing

NETWORKS = (
    "repvgg_a0",
    "mobileone_s0",
    "mobileone_s1",
    "acnet_resnet18",
    "dbb_resnet18",
    "qarepvgg_a0",
    "unireplknet_a",
    "rep_detector",
    "ecbsr_m4c16",
)
REAL = {
    "ch_PP-OCRv4_det_infer": (1, 3, 640, 640),
    "ch_PP-OCRv4_rec_infer": (1, 3, 48, 320),
    "ch_ppocr_mobile_v2.0_cls_infer": (1, 3, 48, 192),
}


class Case(NamedTuple):
    """A model to measure, the shape of its input if it is known, and its deploy form."""

    name: str
    model: onnx.ModelProto
    shape: tuple[int, ...] | None
    deploy: onnx.ModelProto | None = None


def cases(paths: Sequence[Path], only: str) -> Iterator[Case]:
    """Everything to measure."""
    for path in paths:
        yield Case(path.stem, onnx.load(path), None)
    if not paths:
        yield from networks(only)
        yield from real_models(only)


def networks(only: str) -> Iterator[Case]:
    """Networks of models/ whose name holds `only`."""
    import torch

    from models import ZOO, build, reparameterize
    from models.exporting import export

    for name in NETWORKS:
        if only in name:
            shape = ZOO[name].input_shape
            module, image = build(name), torch.zeros(shape)
            forms = (export(m, image, "dynamo", False) for m in (module, reparameterize(module)))
            yield Case(name, next(forms), shape, next(forms))


def real_models(only: str) -> Iterator[Case]:
    """Models that come with the packages of the tests, whose name holds `only`."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is not None and found.origin is not None:
        for name, shape in REAL.items():
            if only in name:
                model = onnx.load(Path(found.origin).parent / "models" / f"{name}.onnx")
                yield Case(name, model, shape)


def measure(case: Case, options: argparse.Namespace) -> tuple[OptimizeResult, BenchResult]:
    """The folded model, and all forms in turn on the same image."""
    fused = onnxfuse.optimize(case.model)
    models = {"before": case.model, "after": fused.model}
    if case.deploy is not None:
        models["deploy"] = case.deploy
    with tempfile.TemporaryDirectory() as folder:
        inputs = None
        if case.shape is not None:
            inputs = Path(folder) / "image.npz"
            np.savez(inputs, np.random.default_rng(0).random(case.shape, dtype=np.float32))
        measured = onnxfuse.bench(
            models, inputs=inputs, rounds=options.rounds, threads=options.threads, memory=False
        )
    return fused, measured


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a name")
    options = parser.parse_args()
    print(
        "| model | input | nodes | before, ms | after, ms | speedup (quartiles) | after / deploy |"
    )
    print("|---|---|---|---|---|---|---|")
    for case in cases(options.models, options.only):
        fused, measured = measure(case, options)
        before, after, *deploy = measured.timings
        low, middle, high = statistics.quantiles(ratios(before, after), n=4)
        over = "".join(f"{statistics.median(ratios(after, form)):.2f}" for form in deploy)
        nodes = f"{fused.report.before.nodes} -> {fused.report.after.nodes}"
        times = [1000 * timing.latency.value for timing in (before, after)]
        shape = "x".join(map(str, next(iter(before.shapes.values()))))
        print(
            f"| {case.name} | {shape} | {nodes} | {times[0]:.2f} "
            f"| {times[1]:.2f} | {middle:.2f} ({low:.2f}-{high:.2f}) | {over} |",
            flush=True,
        )


def ratios(timing: Timing, other: Timing) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(timing.seconds, other.seconds, strict=True)]


if __name__ == "__main__":
    main()
