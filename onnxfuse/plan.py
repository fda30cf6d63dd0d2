"""Which tensors to compute, and from what: a covering problem, solved per affine component.

Every tensor that somebody needs is either made by its own node, which needs the node's inputs, or
folded: computed from one source. Walking the tensors of a component from the last to the first, a
state is the set of tensors still to be made; of two ways into the same state the cheaper one is
kept. This is exact as long as the states fit the beam, and the beam ranks by cost plus area flow,
the estimate that technology mapping uses for what the open tensors will cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

BEAM = 256
_NODE_PRICES = (5_000, 50_000, 1_000_000)


@dataclass(frozen=True)
class Option:
    """One way to make a tensor.

    Attributes:
        needs: Tensors of the component that it reads.
        cost: Nanoseconds, a whole number.
        choice: Index of the candidate, or -1 for the tensor's own node.
        nodes: Nodes that it takes; a node of several outputs counts for the first.
    """

    needs: tuple[str, ...]
    cost: int
    choice: int = -1
    nodes: int = 1


@dataclass(frozen=True)
class _State:
    """A partial plan: what it costs, what it decided last, and the plan before that."""

    cost: int
    tensor: str = ""
    option: Option | None = None
    before: _State | None = None


def lean_cover(
    order: Sequence[str],
    options: Mapping[str, Sequence[Option]],
    required: Iterable[str],
    *,
    node_price: int = 0,
) -> dict[str, Option]:
    """The cheapest cover that has no more nodes than there were.

    Recomputing a shared tensor in each of its readers may save time and cost nodes. Nodes are given
    a price then, which rises until there are no more of them than before.

    Args:
        order: As for `cover`.
        options: As for `cover`.
        required: As for `cover`.
        node_price: Nanoseconds that every node costs besides.

    Returns:
        As for `cover`.
    """
    required = frozenset(required)
    if node_price:
        options = {name: _priced(options[name], node_price) for name in order}
    taken = cover(order, options, required)
    if all(option.nodes <= options[name][0].nodes for name, option in taken.items()):
        return taken
    own = cover(order, {name: options[name][:1] for name in order}, required)
    for price in _NODE_PRICES:
        if _nodes(taken) <= _nodes(own) and _cost(taken) <= _cost(own):
            return taken
        priced = {name: _priced(options[name], price) for name in order}
        chosen = cover(order, priced, required)
        taken = {name: options[name][priced[name].index(o)] for name, o in chosen.items()}
    return own


def _priced(options: Sequence[Option], price: int) -> list[Option]:
    return [replace(option, cost=option.cost + price * option.nodes) for option in options]


def _nodes(taken: Mapping[str, Option]) -> int:
    return sum(option.nodes for option in taken.values())


def _cost(taken: Mapping[str, Option]) -> int:
    return sum(option.cost for option in taken.values())


def cover(
    order: Sequence[str], options: Mapping[str, Sequence[Option]], required: Iterable[str]
) -> dict[str, Option]:
    """The cheapest option for each tensor that has to be made.

    Args:
        order: The tensors of the component, in topological order.
        options: The ways to make each, the tensor's own node first; of equal costs the first wins.
        required: Tensors that somebody outside the component reads.

    Returns:
        The option taken for each tensor that is made; tensors that nobody needs are left out.
    """
    position = {name: i for i, name in enumerate(order)}
    flow = _area_flow(order, options)
    pending = 0
    for name in required:
        pending |= 1 << position[name]
    states: dict[int, _State] = {pending: _State(0)}
    for name in reversed(order):
        bit = 1 << position[name]
        if not any(mask & bit for mask in states):
            continue
        following: dict[int, _State] = {}
        for mask, state in states.items():
            if not mask & bit:
                _keep_cheaper(following, mask, state)
                continue
            for option in options[name]:
                needed = mask & ~bit
                for need in option.needs:
                    needed |= 1 << position[need]
                total = state.cost + option.cost
                _keep_cheaper(following, needed, _State(total, name, option, state))
        states = _pruned(following, order, flow)
    (best,) = states.values()
    return _decisions(best)


def _keep_cheaper(states: dict[int, _State], mask: int, state: _State) -> None:
    known = states.get(mask)
    if known is None or state.cost < known.cost:
        states[mask] = state


def _pruned(
    states: dict[int, _State], order: Sequence[str], flow: Mapping[str, float]
) -> dict[int, _State]:
    if len(states) <= BEAM:
        return states

    def estimate(mask: int) -> float:
        open_tensors = (order[i] for i in range(mask.bit_length()) if mask >> i & 1)
        return states[mask].cost + sum(flow[name] for name in open_tensors)

    best = sorted(states, key=estimate)[:BEAM]
    return {mask: states[mask] for mask in best}


def _decisions(state: _State) -> dict[str, Option]:
    taken: dict[str, Option] = {}
    current: _State | None = state
    while current is not None and current.option is not None:
        taken[current.tensor] = current.option
        current = current.before
    return taken


def _area_flow(order: Sequence[str], options: Mapping[str, Sequence[Option]]) -> dict[str, float]:
    """For each tensor its cheapest cost, that of its inputs shared among their readers."""
    readers: dict[str, int] = {}
    for name in order:
        for need in options[name][0].needs:
            readers[need] = readers.get(need, 0) + 1
    flow: dict[str, float] = {}
    for name in order:
        best = min(o.cost + sum(flow[n] for n in o.needs) for o in options[name])
        flow[name] = best / max(readers.get(name, 1), 1)
    return flow
