"""int8 of folded networks: accuracy on handwritten digits, SNR, size and latency of large ones.

The digits networks of models/trained are calibrated with training images and judged on the test
split. The networks of models/ have random weights: they are calibrated with noise and judged on
other noise, by the SNR of their outputs against the float network's. Latency is taken in turn.

python -m scripts.bench_quantize                      digits, RepVGG-A0, DBB-ResNet-18, MobileOne-S1
python -m scripts.bench_quantize --networks lcnet_rep    other networks of models/
python -m scripts.bench_quantize --weight-bits 8         as for processors with VNNI
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from models import ZOO, build
from models.digits import load_digits
from models.exporting import export
from onnxfuse import QuantizeReport, quantize
from onnxfuse.benchmark import Interval
from onnxfuse.benchmark.machine import describe

TRAINED = Path(__file__).resolve().parent.parent / "models" / "trained"
DIGITS = ("repvgg", "dbb", "mobileone")
NETWORKS = ("repvgg_a0", "dbb_resnet18", "mobileone_s1")
DIGIT_IMAGES = 256
"""Training images that the digits networks are calibrated with, drawn with a seed."""
NOISE = 8
"""Images of noise to calibrate with, and as many others to judge by."""


def digits_report(name: str, options: argparse.Namespace) -> QuantizeReport:
    """A digits network, calibrated with training images and judged on the test split."""
    images = load_digits()[0].images.numpy()
    chosen = np.random.default_rng(0).permutation(len(images))[:DIGIT_IMAGES]
    return quantize(
        TRAINED / f"{name}_digits.onnx",
        {"image": images[np.sort(chosen)]},
        evaluation=TRAINED / "digits_test.npz",
        **_options(options),
    ).report


def network_report(name: str, options: argparse.Namespace) -> QuantizeReport:
    """A network of models/, exported at the size of its input."""
    shape = ZOO[name].input_shape
    model = export(build(name), torch.zeros(shape), "dynamo", dynamic=False)
    calibration, evaluation = (
        {"input": np.random.default_rng(seed).standard_normal((NOISE, *shape[1:])).astype("f")}
        for seed in (0, 1)
    )
    return quantize(model, calibration, evaluation=evaluation, **_options(options)).report


def _options(options: argparse.Namespace) -> dict[str, object]:
    return {
        "method": options.method,
        "weight_bits": options.weight_bits,
        "threads": options.threads,
        "progress": tell,
    }


def tell(step: str, done: int = 0, total: int | None = None) -> None:
    """Shows the step at work, where somebody looks."""
    if sys.stderr.isatty():
        count = f" {done} of {total}" if total else ""
        print(f"\r\x1b[K{step}{count}", end="", file=sys.stderr, flush=True)


def markdown(reports: Sequence[tuple[str, QuantizeReport]]) -> str:
    """A table of all forms of all networks."""
    lines = [
        "| network | form | top-1 | SNR, dB | MB | ms | against float, folded |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, report in reports:
        for number, form in enumerate(report.forms):
            name = network if number == 0 else ""
            if form.quality is None or form.latency is None or form.file_bytes is None:
                lines.append(f"| {name} | {form.name} | {form.failure} | | | | |")
                continue
            accuracy, snr = form.quality.accuracy, form.quality.snr
            cells = [
                name,
                form.name,
                "" if accuracy is None else f"{accuracy:.2%}",
                "" if snr is None else f"{snr:.1f}",
                f"{form.file_bytes / 1e6:.3g}",
                f"{1000 * form.latency.value:.3g}",
                _ratio(form.ratio),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(ratio: Interval | None) -> str:
    if ratio is None or ratio.low == ratio.high == 1:
        return "1"
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints Markdown, and writes all numbers as JSON where that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", nargs="*", default=DIGITS, choices=DIGITS, metavar="NAME")
    parser.add_argument(
        "--networks", nargs="*", default=NETWORKS, choices=list(ZOO), metavar="NAME"
    )
    parser.add_argument("--method", default="minmax")
    parser.add_argument("--weight-bits", type=int, choices=(7, 8))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args(arguments)
    reports = [(f"{name}, digits", digits_report(name, options)) for name in options.digits]
    reports += [(name, network_report(name, options)) for name in options.networks]
    tell("")
    if options.json:
        data = {name: asdict(report) for name, report in reports}
        options.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    print(markdown(reports))
    print(f"\n{_conditions([report for _, report in reports], options)}")


def _conditions(reports: Sequence[QuantizeReport], options: argparse.Namespace) -> str:
    machine = describe()
    bits = sorted({(report.weight_bits, report.weight_bits_reason) for report in reports})
    return "; ".join(
        [
            f"{machine['processor']} ({machine['instructions']})",
            f"{options.threads} thread{'s' * (options.threads != 1)}",
            f"ONNX Runtime {machine['onnxruntime']}",
            options.method,
            *(f"weights of {count} bits: {reason}" for count, reason in bits),
        ]
    )


if __name__ == "__main__":
    main()
