"""Proofs that are kept: for nodes that differ in their names alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.affine import Refusal
from onnxfuse.certify import Certificate
from onnxfuse.graph import Graph
from onnxfuse.rewrites import proofs
from onnxfuse.rewrites.proofs import Proofs
from onnxfuse.rewrites.proving import Replacement, certify_alike

X = np.linspace(-2, 2, 9).astype(np.float32)


def given(
    prefix: str = "",
    constant: float = 3.0,
    order: str = "xk",
    slope: float = 0.5,
    new: float = 3.0,
    opset: int = 17,
) -> tuple[Graph, Replacement]:
    """LeakyRelu(x - k), written with the same nodes."""

    def named(name: str) -> str:
        return prefix + name

    before, after = (
        [
            helper.make_node("Sub", [named(i.replace("k", k)) for i in order], [named(inner)]),
            helper.make_node("LeakyRelu", [named(inner)], [named("y")], alpha=slope),
        ]
        for inner, k, slope in (("a", "k", 0.5), ("b", "j", slope))
    )
    x, y = (helper.make_tensor_value_info(named(n), TensorProto.FLOAT, [9]) for n in "xy")
    held = [numpy_helper.from_array(np.float32(constant), named("k"))]
    graph = Graph(helper.make_graph(before, "g", [x], [y], held), opset, 8)
    constants = {named("j"): np.asarray(new, np.float32)}
    return graph, Replacement(
        kind="the same",
        formula="y = f(x)",
        source=named("x"),
        target=named("y"),
        before=(0, 1),
        gone=(0, 1),
        nodes=after,
        constants=constants,
    )


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> tuple[Proofs, list[Replacement]]:
    """Proofs, and those that were not there."""
    made: list[Replacement] = []

    def counted(graph, replacement, x):
        made.append(replacement)
        return certify_alike(graph, replacement, x)

    monkeypatch.setattr(proofs, "certify_alike", counted)
    return Proofs(), made


def test_other_names_need_no_other_proof(kept):
    held, made = kept
    first = held.certify(*given(), X)
    assert isinstance(first, Certificate)
    assert held.certify(*given("other/"), X) == first
    assert len(made) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"constant": 4.0},
        {"new": 4.0},
        {"order": "kx"},
        {"order": "xx"},
        {"slope": 0.25},
        {"opset": 18},
    ],
)
def test_other_nodes_need_another_proof(kept, change):
    held, made = kept
    held.certify(*given(), X)
    answer = held.certify(*given(**change), X)
    assert len(made) == 2
    assert isinstance(answer, Refusal) == bool({"constant", "new", "slope"} & change.keys())


def test_other_numbers_need_another_proof(kept):
    held, made = kept
    held.certify(*given(), X)
    held.certify(*given(), 2 * X)
    assert len(made) == 2


def test_what_is_refused_stays_refused(kept):
    held, made = kept
    answers = [held.certify(*given(name, new=4.0), X) for name in ("", "other/")]
    assert len(made) == 1
    assert all(isinstance(answer, Refusal) for answer in answers)
