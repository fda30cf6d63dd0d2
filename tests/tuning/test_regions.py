"""Where two models differ, between tensors that both have."""

from onnx import helper

from onnxfuse.graph import Graph
from onnxfuse.tuning.regions import is_divisible, regions, shared_tensors
from tests.lift.building import Builder


def graph_of(model):
    return Graph(model.graph, 17, 8)


def found(*models):
    graphs = [graph_of(model) for model in models]
    return regions(graphs, shared_tensors(graphs))


def chain(scale=2.0, *, inside="", apart=True, op="Relu"):
    """x -> a -> b, where b is a scaled once, or twice."""
    b = Builder()
    a = b.op(op, b.input("n", 3, 8, 8), output="a")
    if apart:
        inner = b.op("Mul", a, b.constant(2.0), output=inside)
        b.op("Mul", inner, b.constant(scale), output="b")
    else:
        b.op("Mul", a, b.constant(2.0 * scale), output="b")
    return b.model(b.op("Abs", "b", output="y"))


def test_models_that_are_the_same_have_one_way():
    same = found(chain(), chain(inside="other"))
    assert [region.outputs for region in same] == [("a",), ("b",), ("y",)]
    assert [region.ways() for region in same] == [[0], [0], [0]]


def test_the_tensor_between_is_where_they_differ():
    differ = found(chain(), chain(apart=False), chain())
    assert {region.outputs: region.ways() for region in differ} == {
        ("a",): [0],
        ("b",): [0, 1],
        ("y",): [0],
    }
    (region,) = [region for region in differ if len(region.ways()) > 1]
    assert [part.inputs for part in region.parts] == [("a",)] * 3
    assert [len(part.nodes) for part in region.parts] == [2, 1, 2]


def test_other_weights_are_another_way_of_the_same_shape():
    _, region, _ = found(chain(), chain(3.0, inside="other"))
    assert region.ways() == [0, 1]
    assert len({part.shape for part in region.parts}) == 1
    assert len({part.digest for part in region.parts}) == 2


def test_other_operators_and_settings_have_another_shape():
    region, *_ = found(chain(), chain(op="LeakyRelu"))
    assert len({part.shape for part in region.parts}) == 2

    def pooled(size):
        b = Builder()
        x = b.input("n", 3, 8, 8)
        return b.model(b.op("MaxPool", x, kernel_shape=[size, size], output="y"))

    (region,) = found(pooled(1), pooled(2))
    assert len({part.shape for part in region.parts}) == 2


def test_tensors_that_are_made_together_are_one_region():
    def halves(apart):
        b = Builder()
        x = b.input("n", 4, 8, 8)
        if apart:
            b.op("Relu", x, output="p")
            b.op("Neg", x, output="q")
        else:
            inner = b.op("Abs", x)
            b.op("Relu", inner, output="p")
            b.op("Neg", inner, output="q")
        return b.model("p", "q")

    assert [region.outputs for region in found(halves(True), halves(True))] == [("p",), ("q",)]
    assert [region.outputs for region in found(halves(True), halves(False))] == [("p", "q")]
    assert [region.outputs for region in found(halves(False), halves(True))] == [("p", "q")]


def test_nodes_with_bodies_stay():
    def chosen(scale):
        b = Builder()
        x = b.input(3, name="x")
        scaled = b.op("Mul", x, b.constant(scale), output=f"times{scale:.0f}")
        inner = helper.make_node("Add", [scaled, scaled], ["twice"])
        outer = helper.make_node("Neg", [scaled], ["less"])
        bodies = [
            helper.make_graph([node], "body", [], [helper.make_tensor_value_info(name, 1, [3])])
            for node, name in ((inner, "twice"), (outer, "less"))
        ]
        b.op("If", b.constant(True), then_branch=bodies[0], else_branch=bodies[1], output="y")
        return b.model("y")

    (region,) = found(chosen(2.0), chosen(3.0))
    assert region.parts[0].digest != region.parts[1].digest
    assert region.ways() == [0]


def test_what_has_effects_is_not_divided():
    model = chain()
    assert is_divisible(graph_of(model))
    model.graph.node.append(helper.make_node("Print", ["a"], [], domain="odd"))
    assert not is_divisible(graph_of(model))
