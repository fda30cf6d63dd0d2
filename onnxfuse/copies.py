"""Which folds not to make, since a weight that several layers share would be there several times.

    conv(x, w) * a,  conv(z, w) * b  ->  conv(x, w'),  conv(z, w")

Constants that come out equal are written once, and one that is there already is not written again.
What folds add beyond that is made of weights that stay, or that go once and come back several
times. It is accepted

1. up to 64 KiB for each shared weight, or
2. where the folds at least halve the time of the nodes that they replace: a scale or a shift never
   does, and runtimes merge it into the weight in memory; joined branches may.

Of the folds that copy one weight all are made, or none; readers in bodies, and around them, count
as if they got copies too. What one fold adds is the bytes of its constants without those of the
constants that go; these count for each by its share of what comes. It is never more than what
stays of the constants that it was made from: a kernel that is larger than the parts it joins is no
copy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx.helper import np_dtype_to_tensor_dtype

from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.growth import FREE_GROWTH, constant_bytes
from onnxfuse.messages import bodies, names_read
from onnxfuse.proposal import Proposal

_FASTER = 2  # times, to be worth copies of a large weight
_FIRST = 64  # bytes, by which most values differ


# Equal constants --------------------------------------------------------------------------------


def write_once(graph: Graph, proposals: Sequence[Proposal]) -> dict[str, Array]:
    """The constants of all proposals, equal ones once; their nodes then read what is written.

    Only what is made from the same constants is compared.

    Args:
        graph: The graph.
        proposals: The proposals; names of constants in their nodes are changed.
    """
    written: dict[str, Array] = {}
    alike: dict[tuple[frozenset[str], TensorType, bytes], list[str]] = {}
    for proposal in proposals:
        before = proposal.constants_before(graph)
        names: dict[str, str] = {}
        for name, value in proposal.constants.items():
            kind = TensorType(int(np_dtype_to_tensor_dtype(value.dtype)), value.shape)
            key = (frozenset(before), kind, _bits(value)[:_FIRST].tobytes())
            made = alike.setdefault(key, [])
            known = next((other for other in made if _equal(written[other], value)), None)
            known = known or next((n for n in before if _is_there(graph, n, kind, value)), None)
            if known is None:
                written[name] = value
                made.append(name)
            else:
                names[name] = known
        for node in proposal.nodes:
            for position, name in enumerate(node.input):
                node.input[position] = names.get(name, name)
    return written


def _is_there(graph: Graph, name: str, kind: TensorType, value: Array) -> bool:
    """True when a constant of the graph has that type and value."""
    return graph.type(name) == kind and _equal(np.asarray(graph.constant(name)), value)


def _equal(one: Array, other: Array) -> bool:
    """Bit for bit; shapes and types are equal."""
    return np.array_equal(_bits(one), _bits(other))


def _bits(value: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


# Growth -----------------------------------------------------------------------------------------


def unprofitable(
    graph: Graph, proposals: Sequence[Proposal], constants: Mapping[str, Array]
) -> dict[str, str]:
    """The folds not to make, by target, each with the reason.

    Args:
        graph: The graph, without the folds.
        proposals: The folds.
        constants: What `write_once` gave for them.
    """
    refused: dict[str, str] = {}
    while True:
        growing = _growing(graph, [p for p in proposals if p.target not in refused], constants)
        dear = {
            member.target: f"its weight {weight!r} is shared: folding would add {size / 1e6:.1f} MB"
            for weight, members in growing.items()
            if (size := _size(graph, weight, members)) > FREE_GROWTH and not _pay(members)
            for member in members
        }
        if not dear:
            return refused
        refused |= dear


Growing = dict[Proposal, float]
"""Folds that copy one weight, and the bytes that each adds."""


def _growing(
    graph: Graph, proposals: Sequence[Proposal], constants: Mapping[str, Array]
) -> dict[str, Growing]:
    """The folds that add bytes, by the constant that most of them are copied from."""
    reads = {proposal: proposal.reads() for proposal in proposals}
    roots = {
        proposal: [n for n in proposal.constants_before(graph) if n not in reads[proposal]]
        for proposal in proposals
    }
    readers = Counter(name for names in reads.values() for name in names)
    new = {
        proposal: math.fsum(constants[n].nbytes / readers[n] for n in names if n in constants)
        for proposal, names in reads.items()
    }
    into: Counter[str] = Counter()
    for proposal, names in roots.items():
        into.update(dict.fromkeys(names, new[proposal]))
    read = _read_after(graph, {p.target: p for p in proposals})
    sizes = {name: constant_bytes(graph, name) for name in into}
    gone = {name for name in into if name not in read and not _read_elsewhere(graph, name)}
    found: dict[str, Growing] = {}
    for proposal, names in roots.items():
        left = {
            n: sizes[n] * (1 - new[proposal] / into[n] if n in gone and into[n] else 1)
            for n in names
        }
        replaced = math.fsum(sizes[n] - left[n] for n in names)
        added = min(new[proposal] - replaced, math.fsum(left.values()))
        if added > 0:
            found.setdefault(max(left, key=left.__getitem__), {})[proposal] = added
    return found


def _size(graph: Graph, weight: str, members: Growing) -> float:
    """Bytes that are added when all readers of a weight, in other graphs too, get copies."""
    here = _readings(graph, weight)
    return math.fsum(members.values()) * (1 + _read_elsewhere(graph, weight) / here)


def _pay(members: Growing) -> bool:
    apart = sum(proposal.apart for proposal in members)
    return apart >= _FASTER * sum(proposal.spent for proposal in members)


def _read_after(graph: Graph, made: Mapping[str, Proposal]) -> set[str]:
    """What this graph still reads when the folds, by target, are made."""
    read: set[str] = set()
    pending = [*graph.outputs, *graph.keep]
    while pending:
        name = pending.pop()
        if name in read:
            continue
        read.add(name)
        if name in made:
            pending.extend(made[name].reads())
        elif name in graph.producers:
            pending.extend(graph.reads[graph.producers[name]])
    return read


def _readings(graph: Graph, name: str) -> int:
    """How many times the nodes of a graph read a tensor, not counting bodies."""
    nodes = (graph.nodes[index] for index in graph.consumers.get(name, ()))
    return sum(list(node.input).count(name) for node in nodes)


def _read_elsewhere(graph: Graph, name: str) -> int:
    """How many times a constant is read by other graphs of the model than this one."""
    owner = graph
    while owner.outer is not None and owner.outer.is_constant(name):
        owner = owner.outer
    nodes = [owner.nodes[index] for index in owner.consumers.get(name, ())]
    inside = (read for node in nodes for body in bodies(node) for read in names_read(body))
    everywhere = _readings(owner, name) + sum(read == name for read in inside)
    outputs = owner.outputs.count(name) if owner is not graph else 0
    return everywhere + outputs - _readings(graph, name)
