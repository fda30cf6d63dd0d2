"""The planner against exhaustive search, on random covering problems of up to 12 tensors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse import plan
from onnxfuse.plan import Option, cover


def cost_of(choice, required):
    """What a full assignment costs: each tensor that is reached is made once."""
    reached, pending = set(), list(required)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(choice[name].needs)
    return sum(choice[name].cost for name in reached)


def exhaustive(order, options, required):
    """The least cost over every assignment of an option to every tensor."""
    return min(
        cost_of(dict(zip(order, picked, strict=True)), required)
        for picked in itertools.product(*(options[name] for name in order))
    )


@st.composite
def problems(draw, most=12, sources=2):
    """A random DAG in which a tensor reads one or two earlier ones, or folds from further up."""
    count = draw(st.integers(3, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    order = [f"t{i}" for i in range(count)]
    options = {}
    for i, name in enumerate(order):
        above = order[max(0, i - 4) : i]
        picked = rng.permutation(above)[: rng.integers(0, 3)] if above else []
        options[name] = [Option(tuple(str(n) for n in picked), int(rng.integers(1, 100)))]
        for choice in range(int(rng.integers(0, sources + 1))):
            needs = (str(rng.choice(above)),) if above and rng.random() < 0.7 else ()
            options[name].append(Option(needs, int(rng.integers(1, 250)), choice))
    required = {order[-1], *(n for n in order if rng.random() < 0.2)}
    return order, options, required


def check_complete(order, options, required, taken):
    made = set(taken)
    assert required <= made
    for name, option in taken.items():
        assert option in options[name]
        assert set(option.needs) <= made


@settings(max_examples=200, deadline=None)
@given(problems(most=10))
def test_the_plan_is_the_cheapest(problem):
    order, options, required = problem
    taken = cover(order, options, required)
    check_complete(order, options, required, taken)
    total = sum(option.cost for option in taken.values())
    assert total == exhaustive(order, options, required)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(problems(most=12))
def test_the_plan_of_twelve_is_the_cheapest(problem):
    test_the_plan_is_the_cheapest.hypothesis.inner_test(problem)


@settings(max_examples=100, deadline=None)
@given(problems(most=10))
def test_a_narrow_beam_stays_close(problem):
    order, options, required = problem
    beam, plan.BEAM = plan.BEAM, 8
    try:
        taken = cover(order, options, required)
    finally:
        plan.BEAM = beam
    check_complete(order, options, required, taken)
    total = sum(option.cost for option in taken.values())
    assert total <= 1.25 * exhaustive(order, options, required)


def test_of_equal_costs_the_own_node_stays():
    options = {"t": [Option((), 2), Option((), 2, 0)]}
    assert cover(["t"], options, {"t"})["t"].choice == -1


def test_a_shared_intermediate_is_paid_once():
    options = {
        "mid": [Option((), 10)],
        "a": [Option(("mid",), 1), Option((), 7, 0)],
        "b": [Option(("mid",), 1), Option((), 7, 0)],
    }
    taken = cover(["mid", "a", "b"], options, {"a", "b"})
    assert set(taken) == {"mid", "a", "b"}
    options["mid"] = [Option((), 13)]
    assert set(cover(["mid", "a", "b"], options, {"a", "b"})) == {"a", "b"}


def test_what_nobody_needs_is_not_made():
    options = {"dead": [Option((), 1)], "t": [Option((), 1)]}
    assert set(cover(["dead", "t"], options, {"t"})) == {"t"}


def test_a_long_chain_is_planned_in_linear_time():
    order = [f"t{i}" for i in range(3000)]
    options = {
        name: [Option(tuple(order[max(0, i - 1) : i]), 2)]
        + [Option((order[i - d],), 3, d) for d in range(2, 8) if i >= d]
        for i, name in enumerate(order)
    }
    taken = cover(order, options, {order[-1]})
    assert sum(o.cost for o in taken.values()) <= 3 * 3000 / 7 + 10
