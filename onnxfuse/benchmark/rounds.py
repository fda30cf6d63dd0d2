"""The timing loop: runners take turns, round by round."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

Runner: TypeAlias = Callable[[int], float]
"""Runs something that many times, and gives the seconds it took in all."""
Blocks: TypeAlias = tuple[tuple[float, ...], ...]
"""The seconds of one run in each round, block by block."""

WARM_UP = 5
BLOCKS = 10
FEWEST_ROUNDS, MOST_ROUNDS = 2 * BLOCKS, 20 * BLOCKS
BUDGET = 10.0
"""Seconds of measuring, where the number of rounds is not given."""
TURN = 0.005
"""Seconds of a turn: what takes less is run several times, so that calls and clock do not count."""
RENEWED = 1
"""Runs of a renewed runner before anything is timed; one more where a run is short."""
LEAD_IN = 0.1
"""A run shorter than these seconds is run once before it is timed: the others have filled the
caches and put the threads to sleep, and a longer run does not notice."""


def timed(call: Callable[[], object]) -> Runner:
    """A runner of a function."""

    def run(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - start

    return run


def measure(
    runners: Sequence[Runner],
    *,
    rounds: int | None = None,
    warm_up: int = WARM_UP,
    budget: float = BUDGET,
    seed: int = 0,
    renew: Callable[[], Sequence[Runner]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Blocks]:
    """Times runners in turn.

    In each round every runner has one turn. The order is drawn anew, and turned around in the next
    round, so that none runs more often behind the same one, or later than the others. Rounds come
    in ten blocks of equal length, or of almost. Garbage is not collected meanwhile.

    Args:
        runners: What to time.
        rounds: How many rounds; None for as many as fit into the budget, 20 to 200.
        warm_up: Runs of each runner before anything is timed.
        budget: Seconds, where `rounds` is None; and of all renewals.
        seed: Of the order.
        renew: Gives new runners of the same things, to take over at the second block and all that
            follow: what depends on where memory happened to lie is then drawn anew. Where that
            takes more than its share of the budget (first runs may: CUDA searches for the fastest
            kernel of each Conv then), they are not renewed again.
        progress: Called before, between and after the rounds: how many are done, of how many.

    Returns:
        For each runner the seconds of one run in each round.
    """
    with _no_collection():
        _warm(runners, warm_up)
        single = [min(runner(1) for _ in range(2)) for runner in runners]
        repeats = [min(max(math.ceil(TURN / max(one, 1e-9)), 1), 10_000) for one in single]
        leads = [int(one < LEAD_IN) for one in single]
        if rounds is None:
            runs = zip(single, repeats, leads, strict=True)
            rounds = _fitting(
                budget / sum(max(one, 1e-9) * (repeat + lead) for one, repeat, lead in runs)
            )
        in_order = orders(len(runners), seed)
        done = 0
        blocks: list[list[list[float]]] = []
        for length in _lengths(rounds):
            if done and renew is not None:
                start = time.perf_counter()
                runners = renew()
                counts = [min(warm_up, RENEWED + lead) for lead in leads]
                for runner, count in zip(runners, counts, strict=True):
                    _warm([runner], count)
                expected = sum(one * count for one, count in zip(single, counts, strict=True))
                if time.perf_counter() - start > expected + budget / BLOCKS:
                    renew = None
            blocks.append([[] for _ in runners])
            for order in itertools.islice(in_order, length):
                if progress is not None:
                    progress(done, rounds)
                for index in order:
                    _warm([runners[index]], leads[index])
                    turn = runners[index](repeats[index]) / repeats[index]
                    blocks[-1][index].append(max(turn, 1e-9))
                done += 1
        if progress is not None:
            progress(done, rounds)
    return [tuple(tuple(block[index]) for block in blocks) for index in range(len(runners))]


def _warm(runners: Sequence[Runner], runs: int) -> None:
    for runner in runners:
        for _ in range(runs):
            runner(1)


def _fitting(rounds: float) -> int:
    """A multiple of twice the number of blocks, so that each holds orders and their opposites."""
    return int(min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS)) // (2 * BLOCKS) * (2 * BLOCKS)


def _lengths(rounds: int) -> list[int]:
    """How many rounds each block has."""
    blocks = min(BLOCKS, rounds)
    size, more = divmod(rounds, blocks)
    return [size + (index < more) for index in range(blocks)]


def orders(count: int, seed: int) -> Iterator[list[int]]:
    """The order of turns for one round after the other: drawn, then the same turned around."""
    rng = np.random.default_rng(seed)
    while True:
        order = [int(index) for index in rng.permutation(count)]
        yield order
        yield order[::-1]


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
