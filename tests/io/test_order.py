import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import onnxfuse
from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.messages import attributes
from tests.io.building import CONDITION, OK_BODY, RNG, body, branch, build, relu, value


def add(name, sources, target):
    return helper.make_node("Add", sources.split(), [target], name=name)


def names(graph):
    return [node.name for node in graph.node]


def results(model, **feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


X = RNG.standard_normal((1, 8, 3, 5)).astype(np.float32)
SHUFFLED = build(
    [
        add("last", "b c", "y"),
        relu("r1", "x", "a"),
        relu("r3", "b", "c"),
        relu("r2", "a", "b"),
        relu("free", "x", "unread"),
    ]
)


def test_nodes_out_of_order_are_sorted():
    before = SHUFFLED.SerializeToString()
    model = io.read(SHUFFLED).model
    assert SHUFFLED.SerializeToString() == before
    assert names(model.graph) == ["r1", "r2", "r3", "last", "free"]
    assert sorted(n.SerializeToString() for n in model.graph.node) == sorted(
        n.SerializeToString() for n in SHUFFLED.graph.node
    )
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(results(model, x=X), results(SHUFFLED, x=X))


def test_a_model_out_of_order_is_optimized():
    model = onnxfuse.optimize(SHUFFLED).model
    np.testing.assert_array_equal(results(model, x=X), results(SHUFFLED, x=X))


def test_nodes_in_order_stay_where_they_are():
    nodes = [relu("r2", "x", "b"), relu("r1", "x", "a"), relu("r3", "b", "c")]
    nodes += [add("end", "a c", "y"), relu("tail", "b", "d")]
    assert names(io.read(build(nodes)).model.graph) == ["r2", "r1", "r3", "end", "tail"]


def test_bodies_are_sorted_and_stand_behind_what_they_capture():
    then = body([relu("second", "p", "q"), relu("first", "made", "p")], ["q"])
    model = build([branch(then, OK_BODY), relu("maker", "x", "made")], inputs=["x", CONDITION])
    read = io.read(model).model
    assert names(read.graph) == ["maker", "if"]
    assert names(attributes(read.graph.node[1])["then_branch"].g) == ["first", "second"]
    (result,) = results(read, x=X, c=np.array(True))
    np.testing.assert_array_equal(result, np.maximum(X, 0))


def test_a_name_of_a_body_is_no_dependency_on_the_same_name_outside():
    """The If makes a `q` of its own; the node that makes the outer `q` needs the If."""
    nodes = [branch(body([relu("r", "x", "q")], ["q"]), body([relu("s", "x", "t")], ["t"]))]
    nodes += [relu("outer", "late", "q"), relu("maker", "y", "late")]
    read = io.read(build(nodes, inputs=["x", CONDITION])).model
    assert names(read.graph) == ["if", "maker", "outer"]


CYCLES = {
    "of two": ([add("add", "x b", "a"), relu("r", "a", "b")], "'[ab]'"),
    "of one": ([add("add", "x y", "y")], "Add 'add' and its input 'y'"),
    "of three, with a tail": (
        [
            relu("tail", "k", "y"),
            relu("r1", "k", "a"),
            add("add", "a x", "b"),
            relu("r2", "b", "k"),
        ],
        "'[abk]'",
    ),
    "beside sorted nodes": (
        [relu("end", "b", "y"), relu("head", "x", "h"), add("add", "h b", "b")],
        "Add 'add' and its input 'b'",
    ),
    "through a body": (
        [branch(body([relu("r", "y", "q")], ["q"]), OK_BODY)],
        "If 'if' and its input 'y'",
    ),
    "in a body": (
        [branch(body([relu("r", "p", "q"), relu("s", "q", "p")], ["q"]), OK_BODY)],
        "Relu '[rs]' and its input '[pq]'",
    ),
}


@pytest.mark.parametrize(("nodes", "said"), CYCLES.values(), ids=CYCLES)
def test_cycles_are_told_in_one_line(nodes, said):
    with pytest.raises(ModelError, match=f"the graph has a cycle through .*{said}") as error:
        io.read(build(nodes, inputs=["x", CONDITION]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([relu("r", "z", "y"), relu("late", "y", "w")], "Relu 'r' reads 'z', which nothing makes"),
        ([relu("r", "a", "y"), relu("one", "x", "a"), relu("two", "x", "a")], "'a' is made twice"),
    ],
)
def test_sorting_hides_no_other_mistake(nodes, said):
    with pytest.raises(ModelError, match=said):
        io.read(build(nodes))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_is_put_right(data):
    count = data.draw(st.integers(1, 12))
    nodes = []
    for index in range(count):
        sources = data.draw(st.lists(st.integers(-1, index - 1), min_size=1, max_size=3))
        inputs = ["x" if source < 0 else f"t{source}" for source in sources]
        nodes.append(helper.make_node("Sum", inputs, [f"t{index}"], name=str(index)))
    order = data.draw(st.permutations(range(count)))
    graph = io.read(build([nodes[i] for i in order], outputs=[value(f"t{count - 1}")])).model.graph
    made = {"x"}
    for node in graph.node:
        assert made.issuperset(node.input)
        made.update(node.output)
    assert sorted(names(graph)) == sorted(map(str, range(count)))


def test_20000_nodes_in_reverse():
    nodes = [relu(f"n{i}", f"t{i}", f"t{i + 1}") for i in range(20_000)]
    model = build(nodes[::-1], inputs=[value("t0")], outputs=[value("t20000")])
    assert names(io.read(model).model.graph) == [node.name for node in nodes]
