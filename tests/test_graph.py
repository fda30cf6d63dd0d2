"""The index over a GraphProto and the edits on it."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.graph import Graph


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def chain(ir_version=8, initializer_inputs=False):
    """X -> Relu -> a -> Mul(s) -> b -> Neg -> c; outputs b and c."""
    weight = numpy_helper.from_array(np.float32([2.5]), "s")
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"], name="relu"),
            helper.make_node("Mul", ["a", "s"], ["b"], name="mul"),
            helper.make_node("Neg", ["b"], ["c"], name="neg"),
            helper.make_node("Exp", ["a"], ["dead"], name="dead"),
        ],
        "chain",
        [floats("x", 3), *([floats("s", 1)] if initializer_inputs else [])],
        [floats("b", 3), floats("c", 3)],
        [weight],
    )
    return Graph(graph, 17, ir_version)


def operators(graph):
    return [node.op_type for node in graph.proto.node]


def test_who_makes_and_who_reads():
    graph = chain()
    assert graph.producers == {"a": 0, "b": 1, "c": 2, "dead": 3}
    assert graph.consumers["a"] == [1, 3]
    assert graph.is_constant("s")
    assert graph.constant_shape("s") == (1,)
    assert graph.constant("a") is None


def test_overridable_initializers_are_not_constant_from_ir_version_4_on():
    assert not chain(8, initializer_inputs=True).is_constant("s")
    assert chain(3, initializer_inputs=True).is_constant("s")


def test_a_replacement_takes_the_place_and_dead_nodes_go():
    graph = chain()
    graph.add_constant("k", np.float32([-2.5]))
    graph.replace("c", [helper.make_node("Mul", ["a", "k"], ["c"], name="new")])
    assert graph.commit()
    assert operators(graph) == ["Relu", "Mul", "Mul"]
    assert [t.name for t in graph.proto.initializer] == ["s", "k"]


def test_initializers_that_nobody_reads_go():
    graph = chain()
    graph.replace("b", [helper.make_node("Identity", ["a"], ["b"])])
    graph.commit()
    assert not graph.proto.initializer


def test_without_edits_nothing_happens():
    graph = chain()
    before = graph.proto.SerializeToString()
    assert not graph.commit()
    assert graph.proto.SerializeToString() == before


def test_an_alias_moves_an_output_name_to_its_source():
    graph = chain()
    assert graph.can_alias("b", "a")
    graph.alias("b", "a")
    assert not graph.can_alias("c", "a")
    graph.commit()
    assert operators(graph) == ["Relu", "Neg"]
    assert graph.proto.node[0].output[0] == "b"
    assert graph.proto.node[1].input[0] == "b"


def test_an_alias_of_an_inner_tensor_redirects_its_readers():
    graph = chain()
    graph.alias("a", "x")
    graph.commit()
    assert operators(graph) == ["Mul", "Neg"]
    assert graph.proto.node[0].input[0] == "x"


def test_outputs_of_graph_inputs_cannot_be_aliased():
    assert not chain().can_alias("b", "x")


def test_tensors_to_keep_are_neither_aliased_nor_dropped():
    graph = chain()
    graph.keep = frozenset({"a", "dead"})
    assert not graph.can_alias("a", "x")
    assert not graph.can_alias("b", "a")
    graph.commit(prune=True)
    assert "Exp" in operators(graph)


def test_one_output_of_several_is_replaced():
    split = helper.make_node("Split", ["x"], ["p", "q"], axis=0, num_outputs=2)
    graph = Graph(
        helper.make_graph([split], "g", [floats("x", 4)], [floats("p", 2), floats("q", 2)]), 18, 8
    )
    graph.replace("p", [helper.make_node("Relu", ["x"], ["p"])])
    graph.commit()
    assert operators(graph) == ["Relu", "Split"]
    assert graph.proto.node[1].output[0] not in ("", "p", "q")
    assert graph.proto.node[1].output[1] == "q"


def test_before_ir_version_4_new_initializers_are_inputs_too_and_dead_ones_are_not():
    graph = chain(3, initializer_inputs=True)
    graph.add_constant("k", np.float32([-2.5]))
    graph.replace("b", [helper.make_node("Mul", ["a", "k"], ["b"])])
    graph.commit()
    assert [i.name for i in graph.proto.input] == ["x", "k"]


def test_unique_names_avoid_every_name_and_each_other():
    graph = chain()
    assert graph.unique_name("a") == "a_1"
    assert graph.unique_name("a") == "a_2"
    assert graph.unique_name("relu") == "relu_1"
    assert graph.unique_name("fresh") == "fresh"


@pytest.fixture
def outer():
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "w"], ["inner"])], "body", [], [floats("inner", 3)]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body),
        ],
        "outer",
        [floats("x", 3), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [floats("y", 3)],
        [numpy_helper.from_array(np.float32([1.5, 2.5, 3.5]), "w")],
    )
    return Graph(graph, 17, 8)


def test_bodies_read_tensors_and_constants_from_around(outer):
    assert outer.captured == {"a", "w", "inner"}
    assert outer.consumers["a"] == [1]
    assert not outer.can_alias("a", "x")
    body = Graph(outer.proto.node[1].attribute[0].g, 17, 8, outer=outer)
    assert body.is_constant("w")
    np.testing.assert_array_equal(body.constant("w"), np.float32([1.5, 2.5, 3.5]))
    assert not body.is_constant("a")
    assert body.unique_name("x") == "x_1"
    outer.commit(prune=True)
    assert [t.name for t in outer.proto.initializer] == ["w"]


def test_value_info_of_tensors_that_are_gone_goes():
    graph = chain()
    graph.proto.value_info.extend([floats("a", 3), floats("dead", 3)])
    graph.commit(prune=True)
    assert [v.name for v in graph.proto.value_info] == ["a"]


def test_a_custom_operator_without_outputs_is_there_for_what_it_does():
    graph = chain()
    graph.proto.node.append(helper.make_node("Abs", ["a"], ["shown"]))
    graph.proto.node.append(helper.make_node("Print", ["shown"], [], domain="my"))
    graph = Graph(graph.proto, 17, 8)
    assert graph.commit(prune=True)
    assert operators(graph) == ["Relu", "Mul", "Neg", "Abs", "Print"]
    assert not graph.has_dead_nodes()


def test_initializers_that_are_kept_stay_whoever_reads_them():
    proto = chain().proto
    proto.initializer.append(numpy_helper.from_array(np.float32([1.5]), "kept"))
    proto.initializer.append(numpy_helper.from_array(np.float32([1.5]), "gone"))
    Graph(proto, 17, 8, keep=frozenset({"kept"})).commit(prune=True)
    assert [tensor.name for tensor in proto.initializer] == ["s", "kept"]
