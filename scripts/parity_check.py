"""Training form against fused form against deploy form, on every provider: parity and speed.

Networks of models/ are exported by torch's default exporter at their own input size; their deploy
forms are what the authors' re-parameterization code gives. Any .onnx file can be given instead.
Each model is checked as `onnxfuse check` does it and measured as `onnxfuse bench` does it.

python scripts/parity_check.py                      networks of models/
python scripts/parity_check.py model.onnx           any model; it has no deploy form
python scripts/parity_check.py --provider cuda      on that provider alone
python scripts/parity_check.py --output results     also results/parity.md and results/parity.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import onnx

import onnxfuse
from onnxfuse import Interval, OnnxfuseError, io
from onnxfuse.benchmark.machine import describe
from onnxfuse.runtime.providers import short_name
from onnxfuse.serial import to_json

ROOT = Path(__file__).resolve().parent.parent
PROVIDERS = ("cpu", "cuda")
MISSING = "not available here"
COLUMNS = (
    "model",
    "provider",
    "nodes (Conv): training",
    "fused",
    "deploy",
    "parity",
    "from float64: training",
    "fused",
    "deploy",
    "ms: training",
    "fused",
    "deploy",
    "training / fused (95%)",
    "deploy / fused (95%)",
)
FORMS = ("training", "fused", "deploy")


@dataclass(frozen=True)
class Network:
    """A model in training form, and in deploy form if there is one."""

    name: str
    training: onnx.ModelProto
    deploy: onnx.ModelProto | None = None


@dataclass(frozen=True)
class Row:
    """One network on one provider.

    Attributes:
        model: Its name.
        provider: The provider.
        nodes: Nodes and Convs, by form.
        differ: What differs from the training form by more than rounding, in words, by form.
        distance: Largest relative L2 distance from float64 of any output, by form.
        seconds: Median seconds of a run, by form.
        ratios: Time of a form over that of the fused form, with a 95% interval.
    """

    model: str
    provider: str
    nodes: Mapping[str, tuple[int, int]]
    differ: Mapping[str, str]
    distance: Mapping[str, float]
    seconds: Mapping[str, float]
    ratios: Mapping[str, Interval]


def networks(paths: Sequence[Path], only: str) -> Iterator[Network]:
    """The files, or the networks of models/ whose name holds `only`."""
    for path in paths:
        source = io.read(path)
        source.embed()
        yield Network(path.stem, source.model)
    if paths:
        return
    sys.path.insert(0, str(ROOT))  # models/ is not installed
    import torch

    from models import ZOO, build, reparameterize
    from models.exporting import export

    for name, network in ZOO.items():
        if only in name:
            module, image = build(name), torch.zeros(network.input_shape)
            forms = (export(m, image, "dynamo", False) for m in (module, reparameterize(module)))
            yield Network(name, next(forms), next(forms))


def providers(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those that are here, and those that are not; of all, if none are wanted."""
    import onnxruntime as ort

    names = map(short_name, ort.get_available_providers())
    here = [name for name in names if name != "azure"]  # that one asks a server
    wanted = wanted or [*here, *PROVIDERS]
    return [name for name in here if name in wanted], [
        name for name in dict.fromkeys(wanted) if name not in here
    ]


def row(network: Network, provider: str, rounds: int | None, threads: int) -> Row:
    """One network on one provider: checked, then measured."""
    models = {"training": network.training, "fused": onnxfuse.optimize(network.training).model}
    if network.deploy is not None:
        models["deploy"] = network.deploy
    differ: dict[str, str] = {}
    distance: dict[str, float] = {}
    for form in list(models)[1:]:
        found = onnxfuse.check(
            network.training, models[form], providers=[provider], threads=threads
        )
        distance["training"] = max(output.first_error for output in found.outputs)
        distance[form] = max(output.second_error for output in found.outputs)
        if not found.agrees:
            wrong = [f"{o.output}: {o.reason}" for o in found.outputs if not o.agrees]
            wrong += [f"{m.tensor} in float64" for m in found.meanings if not m.agrees]
            differ[form] = wrong[0]
    against = {"fused": models["fused"], **models}  # the first is what the ratios are to
    measured = onnxfuse.bench(
        against, providers=[provider], rounds=rounds, threads=threads, memory=False
    )
    times = {timing.model: timing for timing in measured.timings}
    return Row(
        network.name,
        provider,
        {form: _size(model) for form, model in models.items()},
        differ,
        distance,
        {form: timing.latency.value for form, timing in times.items()},
        {form: _inverse(timing.ratio) for form, timing in times.items() if form != "fused"},
    )


def _inverse(ratio: Interval) -> Interval:
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


def _size(model: onnx.ModelProto) -> tuple[int, int]:
    operators = [node.op_type for node in model.graph.node]
    return len(operators), operators.count("Conv")


def cells(made: Row) -> list[str]:
    """A row of the table."""

    def each(values: Mapping[str, str]) -> list[str]:
        return [values.get(form, "") for form in FORMS]

    wrong = "; ".join(f"{form} differs: {why}" for form, why in made.differ.items())
    ratios = {form: f"{r.value:.2f} ({r.low:.2f}-{r.high:.2f})" for form, r in made.ratios.items()}
    return [
        made.model,
        made.provider,
        *each({form: f"{nodes} ({convs})" for form, (nodes, convs) in made.nodes.items()}),
        wrong or "agrees",
        *each({form: f"{error:.1e}" for form, error in made.distance.items()}),
        *each({form: f"{1000 * seconds:.2f}" for form, seconds in made.seconds.items()}),
        ratios["training"],
        ratios.get("deploy", ""),
    ]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    table = [COLUMNS, ["---"] * len(COLUMNS), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def main() -> None:
    """Checks, measures, prints and writes; exits with 1 where a form differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument(
        "--provider", action="append", default=[], help="cpu, cuda, ... (repeatable; default: all)"
    )
    parser.add_argument("--output", type=Path, help="folder for parity.md and parity.json")
    parser.add_argument("--rounds", type=int, help="default: what fits into 10 s")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    here, missing = providers(options.provider)
    made: list[Row] = []
    try:
        for network in networks(options.models, options.only):
            for provider in here:
                made.append(row(network, provider, options.rounds, options.threads))
                print(" | ".join(cells(made[-1])), file=sys.stderr, flush=True)
    except OnnxfuseError as error:
        parser.exit(2, f"parity_check: {error}\n")
    absent = [["all", name, MISSING, *[""] * (len(COLUMNS) - 3)] for name in missing]
    table = markdown([*map(cells, made), *absent])
    described = describe(gpu=here != ["cpu"])
    print(table)
    if options.output is not None:
        about = ", ".join(f"{key}: {value}" for key, value in described.items())
        text = f"{about}; threads: {options.threads}; {date.today()}\n\n{table}\n"
        data = {
            "date": str(date.today()),
            "machine": described,
            "threads": options.threads,
            "rows": [asdict(one) for one in made],
            "missing": dict.fromkeys(missing, MISSING),
        }
        (options.output / "parity.md").write_text(text)
        (options.output / "parity.json").write_text(to_json(data) + "\n")
    sys.exit(1 if any(one.differ for one in made) else 0)


if __name__ == "__main__":
    main()
