"""The timing loop, with runners that only say what they would take."""

import gc
import itertools
from collections import Counter

import pytest

from onnxfuse.benchmark.rounds import TURN, measure, orders, timed


class Fake:
    """A runner that takes a given time, and writes down when it is called."""

    def __init__(self, name, seconds, calls):
        self.name, self.seconds, self.calls = name, seconds, calls

    def __call__(self, times):
        self.calls.append((self.name, times))
        return times * self.seconds


def run(*seconds, **options):
    calls = []
    runners = [Fake(index, one, calls) for index, one in enumerate(seconds)]
    return measure(runners, **options), calls


def flat(blocks):
    return list(itertools.chain(*blocks))


def test_every_runner_has_a_turn_in_each_round():
    result, _ = run(0.5, 0.25, 1.0, rounds=40)
    assert [set(flat(blocks)) for blocks in result] == [{0.5}, {0.25}, {1.0}]
    assert [len(blocks) for blocks in result] == [10] * 3
    assert all(len(block) == 4 for blocks in result for block in blocks)


@pytest.mark.parametrize("rounds", [1, 3, 7, 10, 13, 25])
def test_blocks_of_any_number_of_rounds(rounds):
    (blocks,), _ = run(0.5, rounds=rounds)
    sizes = [len(block) for block in blocks]
    assert sum(sizes) == rounds
    assert len(sizes) == min(rounds, 10)
    assert max(sizes) - min(sizes) <= 1


def test_the_turns_alternate():
    _, calls = run(0.5, 0.5, rounds=40, warm_up=0)
    turns = [name for name, _ in calls[4:]]
    order = [tuple(turns[i : i + 2]) for i in range(0, 80, 2)]
    assert Counter(order) == {(0, 1): 20, (1, 0): 20}


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_none_runs_more_often_behind_the_same_one(count):
    behind, places = Counter(), Counter()
    for order in itertools.islice(orders(count, 0), 2000):
        assert sorted(order) == list(range(count))
        places.update(enumerate(order))
        behind.update(itertools.pairwise(order))
    for a, b in itertools.combinations(range(count), 2):
        assert behind[a, b] == behind[b, a]
    for place in range(count):
        for index in range(count):
            assert places[place, index] == places[count - 1 - place, index]
            assert abs(places[place, index] - 2000 / count) < 200


def test_the_order_is_reproducible():
    first, second, other = (list(itertools.islice(orders(6, seed), 10)) for seed in (3, 3, 4))
    assert first == second != other


def test_what_is_fast_runs_several_times_in_a_turn():
    result, calls = run(TURN / 50, 0.5, rounds=10, warm_up=0)
    assert flat(result[0]) == pytest.approx([TURN / 50] * 10)
    assert Counter(calls)[0, 50] == 10
    assert Counter(calls)[1, 1] == 10 + 2  # and two to see how long it takes


def test_what_is_short_runs_once_before_its_turn():
    _, calls = run(0.05, 0.5, rounds=10, warm_up=0)
    names = Counter(name for name, _ in calls)
    assert names == {0: 2 + 20, 1: 2 + 10}


def test_warm_up():
    _, calls = run(0.5, 0.5, rounds=10, warm_up=7)
    assert calls[:14] == [(0, 1)] * 7 + [(1, 1)] * 7


@pytest.mark.parametrize(
    ("seconds", "budget", "rounds"), [(10.0, 10.0, 20), (0.2, 20.0, 100), (1e-5, 10.0, 200)]
)
def test_rounds_fit_into_the_budget(seconds, budget, rounds):
    (blocks,), _ = run(seconds, budget=budget)
    assert len(flat(blocks)) == rounds


def test_a_clock_that_stands_still():
    (blocks,), _ = run(0.0, rounds=4)
    assert all(one > 0 for one in flat(blocks))


def test_renewed_runners_take_over_at_each_block():
    calls = []
    count = itertools.count(1)

    def renew():
        return [Fake(f"new {next(count)}", 2.0, calls)]

    (blocks,) = measure([Fake("old", 1.0, calls)], rounds=30, warm_up=4, renew=renew)
    assert blocks == ((1.0,) * 3, *((2.0,) * 3 for _ in range(9)))
    names = Counter(name for name, _ in calls)
    assert names == {"old": 4 + 2 + 3, **{f"new {i}": 1 + 3 for i in range(1, 10)}}


class Clock:
    """Time that passes where a runner says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("first", "renewals"), [(0.5, 9), (1.5, 1)])
def test_what_is_dear_to_renew_is_renewed_once(monkeypatch, first, renewals):
    clock, renewed = Clock(), []
    monkeypatch.setattr("onnxfuse.benchmark.rounds.time", clock)

    def fresh():
        runs = itertools.chain([first], itertools.repeat(0.25))

        def runner(times):
            seconds = sum(next(runs) for _ in range(times))
            clock.now += seconds
            return seconds

        return [runner]

    def renew():
        renewed.append(clock.now)
        return fresh()

    (blocks,) = measure(fresh(), rounds=30, budget=10, renew=renew)
    assert len(renewed) == renewals
    assert flat(blocks) == [0.25] * 30


def test_progress():
    told = []
    run(0.5, rounds=12, progress=lambda *step: told.append(step))
    assert told == [(done, 12) for done in range(13)]


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_not_collected_meanwhile(on):
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        seen = []

        def runner(times):
            seen.append(gc.isenabled())
            if len(seen) > 5:
                raise RuntimeError("stop")
            return 1.0

        with pytest.raises(RuntimeError, match="stop"):
            measure([runner], rounds=10)
        assert not any(seen)
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()


def test_timed_runs_that_many_times():
    calls = []
    assert timed(lambda: calls.append(1))(5) > 0
    assert len(calls) == 5
