"""What compression costs and gains: bits and blocks, on published networks and trained ones.

The published networks have random weights with statistics as they are after training; for them,
outputs are compared on one picture of noise. Accuracy is that of the digits networks, which are
trained, on the test split that ships with them.

python -m scripts.bench_compress                    all, 2 to 8 bits by blocks of 32, 64 and 128
python -m scripts.bench_compress --only repvgg      networks whose name holds a word
python -m scripts.bench_compress a.onnx             any model
python -m scripts.bench_compress --output results   also results/compress.md
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import models
import onnxfuse
from models import ZOO, build
from models.exporting import export
from onnxfuse.benchmark.machine import describe
from onnxfuse.runtime import load_model, open_session

PUBLISHED = {
    "RepVGG-A0": "repvgg_a0",
    "ResNet-18 (ACNet)": "acnet_resnet18",
    "MobileOne-S1": "mobileone_s1",
}
DIGITS = ("repvgg", "dbb", "mobileone")
TRAINED = Path(models.__file__).parent / "trained"
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "zero point": {"zero_point": True},
    "channel shift": {"channel_shift": True},
}
COLUMNS = (
    "network",
    "bits",
    "block",
    "with",
    "file, KB",
    "smaller",
    "weights, dB",
    "outputs off by",
    "accuracy, %",
    "s",
)


def networks(paths: Sequence[Path], only: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Names and models, all branches in."""
    if paths:
        yield from ((path.stem, onnx.load(path)) for path in paths)
        return
    for name, network in PUBLISHED.items():
        if only in network:
            image = torch.zeros(ZOO[network].input_shape)
            yield name, export(build(network), image, "script", dynamic=False)
    for network in DIGITS:
        if only in f"{network} digits":
            yield f"{network} digits", onnx.load(TRAINED / f"{network}_digits.onnx")


def accuracy(model: onnx.ModelProto) -> float:
    """Percent of the test split that a digits network reads right."""
    test = np.load(TRAINED / "digits_test.npz")
    with load_model(model) as loaded:
        session = open_session(loaded, "CPUExecutionProvider")
        (logits,) = session.run({"image": test["images"]}, ["logits"])
    return float(100 * np.mean(logits.argmax(axis=1) == test["labels"]))


def row(name: str, model: onnx.ModelProto, bits: int, block: int, variant: str) -> list[str]:
    """One network in one setting."""
    start = time.perf_counter()
    result = onnxfuse.compress(model, bits=bits, block=block, fold=False, **VARIANTS[variant])
    seconds = time.perf_counter() - start
    report = result.report
    found = [weight.snr for weight in report.compressed if math.isfinite(weight.snr)]
    error = report.error
    return [
        name,
        str(bits),
        str(block),
        variant,
        f"{report.bytes_after / 1000:,.0f}",
        f"{report.ratio:.2f}",
        f"{statistics.median(found):.1f}" if found else "",
        error if isinstance(error, str) else f"{error.relative_l2:.1e}",
        f"{accuracy(result.model):.2f}" if name.endswith("digits") else "",
        f"{seconds:.1f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--bits", default="2,3,4,8", help="with commas")
    parser.add_argument("--blocks", default="32,64,128", help="with commas")
    parser.add_argument("--variants", action="store_true", help="zero points, channel shifts too")
    parser.add_argument("--output", type=Path, help="folder for compress.md")
    options = parser.parse_args(arguments)
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    bits, blocks = (list(map(int, text.split(","))) for text in (options.bits, options.blocks))
    variants = list(VARIANTS) if options.variants else [""]
    for name, model in networks(options.models, options.only):
        folded = onnxfuse.optimize(model)
        size = f"{len(folded.model.SerializeToString()) / 1000:,.0f}"
        right = f"{accuracy(folded.model):.2f}" if name.endswith("digits") else ""
        lines.append([name, "float", "", "", size, "1", "", "", right, ""])
        for setting in itertools.product(bits, blocks, variants):
            lines.append(row(name, folded.model, *setting))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = ", ".join(f"{key}: {value}" for key, value in describe().items())
    print(f"{table}\n\n{about}")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "compress.md").write_text(f"{table}\n\n{about}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
