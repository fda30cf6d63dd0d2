"""What `bench` measures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Interval:
    """A number with its 95% confidence interval.

    Attributes:
        value: The number.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """One model on one provider at one size.

    Attributes:
        model: What the model is called.
        provider: The provider, as users name it.
        shapes: Shapes of the inputs, by name.
        batch: Extent of the first axis of the first input.
        latency: Median seconds of a run.
        ratio: Median, over the rounds, of the first model's time over this one's: above 1 this one
            is faster.
        throughput: Batch elements a second, at the median.
        peak_memory: Bytes by which the resident memory of a process of its own grew, from before
            the session was created to the peak of running it; None where it was not measured.
        session_seconds: What creating the session took.
        seconds: The time of a run in each round, in order; the mean of several where one is short.
        operators: Share of the time by operator type, the largest first; empty unless profiled.
    """

    model: str
    provider: str
    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    latency: Interval
    ratio: Interval
    throughput: float
    peak_memory: int | None
    session_seconds: float
    seconds: tuple[float, ...] = field(repr=False)
    operators: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchResult:
    """A measurement of one or more models, in turn.

    Attributes:
        timings: By provider, then batch, then model, in the order given.
        threads: Threads within an operator; None for the runtime's choice.
        optimization: How far the runtime's own optimizer went.
        machine: Processor, operating system and package versions, by name.
        notes: What else there is to say, a line each.
        config: Entries of the sessions' configuration, by key.
    """

    timings: tuple[Timing, ...]
    threads: int | None
    optimization: str
    machine: Mapping[str, str]
    notes: tuple[str, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The result as JSON, keys as the attributes are named."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)
