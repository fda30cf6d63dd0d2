"""Models on one provider: their sessions, and everything that is measured for one set of inputs."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfuse.benchmark.binding import caller
from onnxfuse.benchmark.cases import Case
from onnxfuse.benchmark.matching import match
from onnxfuse.benchmark.memory import peak_memory
from onnxfuse.benchmark.operators import operator_shares
from onnxfuse.benchmark.others import Others
from onnxfuse.benchmark.result import Timing
from onnxfuse.benchmark.rounds import Runner, measure, timed
from onnxfuse.benchmark.settings import Settings
from onnxfuse.benchmark.statistics import median_of_blocks, paired_ratio
from onnxfuse.runtime import Feeds, Loaded, Session, load_model
from onnxfuse.runtime.providers import short_name

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Is told what is being done, how much of it is done, and of how much, if that is known."""

_CHEAP = 0.5
"""Sessions that are created in these seconds, all of them, are created anew for each block."""


@dataclass(frozen=True)
class Effort:
    """What is measured, and how thoroughly.

    Attributes:
        rounds: How many rounds; None for what fits into the budget.
        warm_up: Runs of each model before the first round.
        memory: Whether peak memory is measured.
        profile: Whether time is attributed to operator types.
    """

    rounds: int | None
    warm_up: int
    memory: bool
    profile: bool


class Opened:
    """Models with their sessions on one provider."""

    def __init__(self, models: Sequence[Loaded], settings: Settings) -> None:
        """Creates a session of each model.

        Raises:
            ModelError: ONNX Runtime cannot load a model, or not on this provider.
        """
        with load_model(_nothing()) as nothing:
            settings.open(nothing)  # what a provider needs to start is no model's fault
        self.models, self.settings = models, settings
        self.sessions: list[Session] = []
        self.seconds: list[list[float]] = [[] for _ in models]
        self._rng = np.random.default_rng(0)
        self.renew()

    @property
    def cheap(self) -> bool:
        """True when sessions are created in no time."""
        return sum(times[0] for times in self.seconds) < _CHEAP

    def renew(self) -> None:
        """Creates the sessions anew, in an order that is drawn; then the old ones go."""
        made: dict[int, Session] = {}
        for index in map(int, self._rng.permutation(len(self.models))):
            made[index] = self.settings.open(self.models[index])
            self.seconds[index].append(made[index].seconds)
        self.sessions = [made[index] for index in range(len(made))]

    def runners(self, feeds: Sequence[Feeds]) -> list[Runner]:
        """A runner of each session, given what each model takes."""
        pairs = zip(self.sessions, feeds, strict=True)
        return [timed(caller(session, given)) for session, given in pairs]


def _nothing() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "nothing", [x], [y])
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, ir_version=7, opset_imports=[opset])


def measure_case(
    opened: Opened, case: Case, effort: Effort, tell: Progress
) -> tuple[list[Timing], list[str]]:
    """Times models in turn, and measures what else is asked for.

    Args:
        opened: The models.
        case: What the first is given; the others get the same arrays.
        effort: What to measure.
        tell: Told how far it is.

    Returns:
        A timing for each model, and what there is to note.

    Raises:
        ModelError: The models take different inputs.
        RunError: A model does not run.
    """
    feeds = [match(case.feeds, opened.models[0], model) for model in opened.models]
    label = f"{short_name(opened.settings.provider)}, batch {case.batch}"
    tell(f"{label}: warming up", 0, None)

    def renew() -> list[Runner]:
        opened.renew()
        return opened.runners(feeds)

    runners, others = opened.runners(feeds), Others()
    blocks = measure(
        runners,
        rounds=effort.rounds,
        warm_up=effort.warm_up,
        renew=renew if opened.cheap else None,
        progress=lambda done, total: tell(f"{label}: rounds", done, total),
    )
    timings: list[Timing] = []
    notes = [note] if (note := others.note()) else []
    for index, model in enumerate(opened.models):
        peak, operators, latency = None, {}, median_of_blocks(blocks[index])
        if effort.memory:
            tell(f"{label}: memory of {model.name}", 0, None)
            peak, why = peak_memory(model, opened.settings, feeds[index])
            notes += [why] if why else []
        if effort.profile:
            tell(f"{label}: profile of {model.name}", 0, None)
            operators = operator_shares(model, opened.settings, feeds[index])
        timings.append(
            Timing(
                model=model.name,
                provider=short_name(opened.settings.provider),
                shapes=case.shapes,
                batch=case.batch,
                latency=latency,
                ratio=paired_ratio(blocks[0], blocks[index]),
                throughput=case.batch / latency.value,
                peak_memory=peak,
                session_seconds=statistics.median(opened.seconds[index]),
                seconds=tuple(itertools.chain(*blocks[index])),
                operators=operators,
            )
        )
    return timings, notes
