"""Latency of models before and after, in turn in one run, the runtime's own optimizations on.

Networks of models/ are measured in their authors' deploy form too.

python -m scripts.bench_latency              networks of models/ and those the tests install
python -m scripts.bench_latency model.onnx   any model; symbolic: batch 1, extents 224
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort

import onnxfuse

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
WARM_UP = 3


class Case(NamedTuple):
    """A model to measure, the shape of its input, and its deploy form if there is one."""

    name: str
    model: onnx.ModelProto
    shape: tuple[int, ...]
    deploy: onnx.ModelProto | None = None


def cases(paths: Sequence[Path], only: str) -> Iterator[Case]:
    """Everything to measure."""
    for path in paths:
        model = onnx.load(path)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        shape = tuple(d.dim_value or (224 if axis else 1) for axis, d in enumerate(dims))
        yield Case(path.stem, model, shape)
    if paths:
        return
    import torch

    from models import ZOO, build, reparameterize
    from models.exporting import export

    for name in NETWORKS:
        if only in name:
            shape = ZOO[name].input_shape
            module, image = build(name), torch.zeros(shape)
            forms = (export(m, image, "dynamo", False) for m in (module, reparameterize(module)))
            yield Case(name, next(forms), shape, next(forms))
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is not None and found.origin is not None:
        for name, shape in REAL.items():
            if only in name:
                model = onnx.load(Path(found.origin).parent / "models" / f"{name}.onnx")
                yield Case(name, model, shape)


def session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session on the CPU provider."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def measure(
    models: Sequence[onnx.ModelProto], shape: tuple[int, ...], rounds: int, threads: int
) -> list[list[float]]:
    """Seconds of every round for each model, the models taking turns."""
    runners = [session(model, threads) for model in models]
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    seconds: list[list[float]] = [[] for _ in models]
    for number in range(WARM_UP + rounds):
        for runner, times in zip(runners, seconds, strict=True):
            start = time.perf_counter()
            runner.run(None, {runner.get_inputs()[0].name: image})
            if number >= WARM_UP:
                times.append(time.perf_counter() - start)
    return seconds


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
        fused = onnxfuse.optimize(case.model)
        models = [case.model, fused.model, *([case.deploy] if case.deploy else [])]
        before, after, *deploy = measure(models, case.shape, options.rounds, options.threads)
        low, middle, high = statistics.quantiles(ratios(before, after), n=4)
        over = "".join(f"{statistics.median(ratios(after, times)):.2f}" for times in deploy)
        nodes = f"{fused.report.before.nodes} -> {fused.report.after.nodes}"
        times = [1000 * statistics.median(run) for run in (before, after)]
        print(
            f"| {case.name} | {'x'.join(map(str, case.shape))} | {nodes} | {times[0]:.2f} "
            f"| {times[1]:.2f} | {middle:.2f} ({low:.2f}-{high:.2f}) | {over} |",
            flush=True,
        )


def ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(times, others, strict=True)]


if __name__ == "__main__":
    main()
