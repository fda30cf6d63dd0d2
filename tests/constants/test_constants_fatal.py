"""Constants that end the process of whoever evaluates them, in a branch that may never run."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxfuse
from tests.constants.building import ADD, FLOAT, INT64, Folded, build, fold, node, run, value
from tests.constants.test_constants_bodies import body, branching

SMALLEST = {kind: np.iinfo(kind).min for kind in ("int32", "int64")}

OPTIMIZE = """
import sys, onnxfuse
for path in sys.argv[1:]:
    onnxfuse.optimize(path).save(path + ".out")
"""


def optimized(folder, models):
    """What becomes of models by name, in another process."""
    paths = [folder / name for name in models]
    for path in paths:
        path.write_bytes(models[path.name].SerializeToString())
    done = subprocess.run([sys.executable, "-c", OPTIMIZE, *paths], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return {path.name: onnx.load(f"{path}.out") for path in paths}


def unlikely(nodes, weights):
    """If c: y = x + the sum of k, which the nodes make; else y = relu(x)."""
    nodes = [*nodes, node("Cast", "k", "f", to=FLOAT), node("ReduceSum", "f", "t", keepdims=0)]
    otherwise = body([node("Relu", "x", "q")], "q")
    return branching(body([*nodes, node("Add", "x t", "p")], "p"), otherwise, weights)


def unlikely_part(model):
    """Operators of the branch that the nodes were in."""
    (choice,) = model.graph.node
    return [n.op_type for a in choice.attribute if a.name == "then_branch" for n in a.g.node]


def test_integers_that_no_processor_divides_are_left_alone(tmp_path):
    """-2^63 / -1 is one more than the largest integer."""
    models = {
        f"{op_type} {kind}": unlikely(
            [node(op_type, "a b", "k")],
            {"a": np.array([7, low, 9], kind), "b": np.array([2, -1, 3], kind)},
        )
        for kind, low in SMALLEST.items()
        for op_type in ("Div", "Mod")
    }
    x = np.array([[-1, 2, -3, 4]], np.float32)
    for name, model in optimized(tmp_path, models).items():
        assert unlikely_part(model)[0] == name.split()[0]
        (y,) = run(model, {"x": x, "c": np.array(False)})
        np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_a_divisor_that_is_computed_is_looked_at_too(tmp_path):
    nodes = [node("Sub", "b d", "minus"), node("Div", "a minus", "k")]
    weights = {"a": np.array([7, SMALLEST["int64"]]), "b": np.array([2, 3]), "d": np.array([3, 4])}
    (model,) = optimized(tmp_path, {"net": unlikely(nodes, weights)}).values()
    assert unlikely_part(model)[0] == "Div"


NOT_TRIED = {
    "Div by 0": node("Div", "i zero", "d"),
    "Mod by 0": node("Mod", "i zero", "d"),
}


@pytest.mark.parametrize("bad", NOT_TRIED.values(), ids=NOT_TRIED)
def test_what_ends_some_versions_of_the_runtime_is_not_even_tried(monkeypatch, bad):
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    nodes = [bad, node("Cast", "d", "f", to=FLOAT), node("ReduceMax", "f", "k", keepdims=0), ADD]
    weights = {"i": np.arange(4), "zero": np.array([0, 0, 0, 0])}
    assert Folded(build(nodes, weights)).operators[0] == bad.op_type


@pytest.mark.parametrize("op_type", ["Div", "Mod"])
@pytest.mark.parametrize("kind", ["int32", "int64", "uint8"])
def test_other_divisors_fold(op_type, kind):
    nodes = [node(op_type, "a b", "d"), node("Cast", "d", "k", to=FLOAT), ADD]
    weights = {"a": np.array([7, 8, 9, 100], kind), "b": np.array([2, 3, 4, 7], kind)}
    assert fold(build(nodes, weights)).operators == ["Add"]


def test_a_divisor_that_is_computed_folds_once_it_is_known():
    nodes = [node("Add", "b b", "c"), node("Div", "a c", "d"), node("Mod", "d c", "e")]
    nodes += [node("Cast", "e", "k", to=FLOAT), ADD]
    folded = fold(build(nodes, {"a": np.array([7, 80, 9, 100]), "b": np.array([2, 3, 4, 7])}))
    assert folded.operators == ["Add"]


@pytest.mark.parametrize("divisor", [0, -1])
def test_floats_are_divided_by_anything(divisor):
    weights = {"a": np.array([7, 8, 9, 0], np.float32), "b": np.array(divisor, np.float32)}
    assert Folded(build([node("Div", "a b", "k"), ADD], weights)).operators == ["Add"]


def test_a_size_beyond_64_bits_is_left_alone():
    nodes = [node("Size", "x", "n"), node("Shape", "x", "s")]
    model = build(nodes, inputs=[value("x", (2**33, 2**33))], outputs=[value("n", (), INT64), "s"])
    model.graph.output[1].type.tensor_type.elem_type = INT64
    result = onnxfuse.optimize(model)
    assert [n.op_type for n in result.model.graph.node] == ["Size"]
