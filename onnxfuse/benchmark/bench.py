"""`bench`: models in turn, on each provider, at each batch size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.benchmark import machine
from onnxfuse.benchmark.binding import DEVICES, is_bound
from onnxfuse.benchmark.cases import Case, made_cases, recorded_cases
from onnxfuse.benchmark.measuring import Effort, Opened, Progress, measure_case
from onnxfuse.benchmark.result import BenchResult, Timing
from onnxfuse.benchmark.rounds import WARM_UP
from onnxfuse.benchmark.settings import Settings
from onnxfuse.benchmark.statistics import FEWEST
from onnxfuse.errors import ModelError
from onnxfuse.runtime import Loaded, load_model
from onnxfuse.runtime.config import session_config
from onnxfuse.runtime.providers import require_providers, short_name
from onnxfuse.runtime.session import OPTIMIZATIONS, Optimization

if TYPE_CHECKING:
    from typing import TypeAlias

    from onnxfuse.io.reading import AnyPath, Readable

    Models: TypeAlias = Readable | Sequence[Readable] | Mapping[str, Readable]


def bench(
    models: Models,
    *,
    providers: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (),
    sizes: Mapping[str, int] | None = None,
    inputs: AnyPath | None = None,
    threads: int | None = None,
    optimization: Optimization = "all",
    rounds: int | None = None,
    warm_up: int = WARM_UP,
    memory: bool = True,
    profile: bool = False,
    tf32: bool = False,
    config: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measures how fast models are, against the first of them.

    All models get the same arrays and take turns, round by round, so that what slows the machine
    down for a while slows all of them. A model that takes less than 5 ms runs several times in its
    turn, and one that takes less than 100 ms once more before its turn is timed. Rounds come in
    ten blocks; where sessions are created quickly, each block has new ones. The intervals are those
    of the blocks' medians.

    On the CPU a run is `session.run` with numpy arrays. On CUDA, TensorRT, DirectML, CANN and
    WebGPU, inputs and outputs stay in device memory, and a run ends when they are computed.

    Args:
        models: One model or several: paths, or whatever `optimize` takes; a mapping gives them
            names.
        providers: Execution providers of ONNX Runtime, such as "cpu" and "cuda".
        batches: Extents of the inputs' first axis, if that is symbolic; default: 1.
        sizes: Extents of other symbolic dimensions, by name; default: 224, or where the first
            model does not run at that, another one.
        inputs: Arrays from an .npz or a folder of ONNX test data instead of random ones.
        threads: Threads within an operator; None for the runtime's choice.
        optimization: How far the runtime's own optimizer goes: "off", "basic", "extended",
            "layout", "all".
        rounds: How many rounds; None for what fits into 10 s, at least 20 and at most 200.
        warm_up: Runs of each model before the first round.
        memory: Whether peak memory is measured, in a process for each model.
        profile: Whether to attribute time to operator types, in sessions of their own.
        tf32: On CUDA, whether products in float32 may be computed in TF32.
        config: Entries of the sessions' configuration, by ONNX Runtime's keys, as
            {"session.disable_quant_qdq": "1"}, with which weights in few bits are computed once,
            when the session is created.
        progress: Called with what is being done, how many rounds are done, and of how many.

    Raises:
        ModelError: A model or an option cannot be used, a provider is missing, or the models take
            different inputs.
        RunError: A model does not run on the inputs.
    """
    tell = progress or (lambda step, done, total: None)
    _check(optimization, threads, rounds, warm_up)
    effort = Effort(rounds, warm_up, memory, profile)
    config = session_config(config or {})
    settings = [
        Settings(provider, optimization, threads, tf32, config)
        for provider in require_providers(providers)
    ]
    if inputs is not None and (batches or sizes):
        raise ModelError("inputs from files have their sizes: leave out batches and sizes")
    notes: list[str] = []
    timings: list[Timing] = []
    cases: list[Case] = []
    with ExitStack() as stack:
        loaded: list[Loaded] = []
        for name, model in _named(models):
            tell(f"reading {name}", 0, None)
            loaded.append(stack.enter_context(load_model(model, name)))
        for setting in settings:
            tell(f"creating sessions on {short_name(setting.provider)}", 0, None)
            opened = Opened(loaded, setting)
            if not cases:
                if inputs is not None:
                    cases, said = recorded_cases(Path(inputs), loaded[0])
                    notes += said
                else:
                    cases = made_cases(loaded[0], opened.sessions[0], sizes or {}, batches)
            for case in cases:
                made, said = measure_case(opened, case, effort, tell)
                timings += made
                notes += said
            notes += _notes(setting.provider, cases, memory, profile)
    if len(timings[0].seconds) < FEWEST:
        notes.append(
            f"fewer than {FEWEST} rounds: the intervals are the ranges of the numbers, and cover "
            "the medians with less than 95%"
        )
    return BenchResult(
        tuple(timings),
        threads,
        optimization,
        machine.describe(gpu=any(setting.provider in DEVICES for setting in settings)),
        tuple(dict.fromkeys(notes)),
        config,
    )


def _check(optimization: str, threads: int | None, rounds: int | None, warm_up: int) -> None:
    if optimization not in OPTIMIZATIONS:
        raise ModelError(f"optimization {optimization!r} is none of {', '.join(OPTIMIZATIONS)}")
    for name, value, least in (("threads", threads, 1), ("rounds", rounds, 1)):
        if value is not None and value < least:
            raise ModelError(f"{name} must be at least {least}, not {value}")
    if warm_up < 0:
        raise ModelError(f"warm_up must not be negative, as {warm_up} is")


def _named(models: Models) -> Iterator[tuple[str, Any]]:
    """The models with what messages call them."""
    if isinstance(models, Mapping):
        listed: list[tuple[str | None, Any]] = [(str(name), m) for name, m in models.items()]
    elif isinstance(models, Sequence) and not isinstance(models, str):
        listed = [(None, model) for model in models]
    else:
        listed = [(None, models)]
    if not listed:
        raise ModelError("no model is given")
    for number, (name, model) in enumerate(listed, 1):
        is_path = isinstance(model, (str, os.PathLike))
        yield name or (os.fspath(model) if is_path else f"model {number}"), model


def _notes(provider: str, cases: Sequence[Case], memory: bool, profile: bool) -> list[str]:
    """What has to be said of a provider that has memory of its own."""
    if provider not in DEVICES:
        return []
    name = short_name(provider)
    notes = []
    if not all(is_bound(provider, case.feeds) for case in cases):
        notes.append(f"{name}: strings and sequences are copied from the host within each run")
    if memory:
        notes.append(f"{name}: peak memory is that of the host, without the device's")
    if profile:
        notes.append(f"{name}: the profile counts what launching kernels takes on the host")
    return notes
