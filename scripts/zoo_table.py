"""What `scripts.bench_zoo` measures, and its tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxfuse.benchmark import Interval


@dataclass(frozen=True)
class Outcome:
    """One contestant on one network.

    Attributes:
        nodes: Nodes of the model it gives; None for PyTorch, and where it gives none.
        latency: Median seconds of a run; None where nothing ran.
        ratio: The training form's time over this one's.
        failure: Why nothing ran; empty otherwise.
    """

    nodes: int | None = None
    latency: Interval | None = None
    ratio: Interval | None = None
    failure: str = ""


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        network: Its name.
        shape: The shape of its input.
        outcomes: By contestant, the training form first.
    """

    network: str
    shape: tuple[int, ...]
    outcomes: Mapping[str, Outcome]


def geometric_means(rows: Sequence[Row]) -> tuple[dict[str, float], list[str]]:
    """The mean ratio of each contestant that ran at all, and the networks that it is over.

    These are the networks on which all such contestants ran, so that the means compare.
    """
    names = [
        name
        for name in (rows[0].outcomes if rows else ())
        if any(row.outcomes[name].ratio for row in rows)
    ]
    common = [row for row in rows if all(row.outcomes[name].ratio for name in names)]
    means = {}
    for name in names if common else ():
        ratios = [ratio.value for row in common if (ratio := row.outcomes[name].ratio)]
        means[name] = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return means, [row.network for row in common]


def markdown(rows: Sequence[Row], setting: str) -> str:
    """Two tables, nodes and latency, and why some cells hold no number.

    Args:
        rows: The networks, all with the same contestants.
        setting: Where and how they were measured.
    """
    names = list(rows[0].outcomes)
    means, common = geometric_means(rows)
    times = [[row.network, *map(_time, row.outcomes.values())] for row in rows]
    over = f"geometric mean, {len(common)} network{'s' * (len(common) != 1)}"
    times.append([over, *(f"{means[name]:.2f}x" if name in means else "" for name in names)])
    models = [name for name in names if any(row.outcomes[name].nodes for row in rows)]
    nodes = [[row.network, *(_nodes(row.outcomes[name]) for name in models)] for row in rows]
    reasons = [
        f"{name} on {row.network}: {outcome.failure}"
        for row in rows
        for name, outcome in row.outcomes.items()
        if ":" in outcome.failure
    ]
    parts = [
        "Latency in ms, and how many times as fast as the training form:",
        _table(["network", *names], times),
        "Nodes:",
        _table(["network", *models], nodes),
        *reasons,
        setting,
    ]
    return "\n\n".join(parts) + "\n"


def _time(outcome: Outcome) -> str:
    if outcome.latency is None or outcome.ratio is None:
        return outcome.failure.partition(":")[0]
    return f"{1000 * outcome.latency.value:.2f} ({outcome.ratio.value:.2f}x)"


def _nodes(outcome: Outcome) -> str:
    return outcome.failure.partition(":")[0] if outcome.nodes is None else str(outcome.nodes)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
