import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse import io
from onnxfuse.errors import ModelError
from tests.io.building import (
    BIAS,
    CONDITION,
    FLOAT,
    OK_BODY,
    body,
    branch,
    build,
    conv,
    relu,
    rich,
    value,
)


def typed_tensor(**fields):
    return TensorProto(name="w", **fields)


def imports(version, domain="org.example"):
    return build([relu()], imports=[helper.make_opsetid(domain, version)])


def own_versions(*imported):
    """The model with these imports (domain, version) of ONNX's operators, and no others."""
    model = build([relu()])
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*pair) for pair in imported)
    return model


def calling(calls):
    """Local functions of domain own, each a row of calls to others; the graph calls the first."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = build([helper.make_node(next(iter(calls)), ["x"], ["y"], domain="own")])
    model.opset_import.append(opsets[1])
    for name, called in calls.items():
        nodes = [
            helper.make_node(op, [f"t{i}"], [f"t{i + 1}"], domain="own" if op in calls else "")
            for i, op in enumerate(called)
        ]
        model.functions.append(
            helper.make_function("own", name, ["t0"], [f"t{len(called)}"], nodes, opsets)
        )
    return model


def one_function_twice():
    model = calling({"F": ["Relu"]})
    model.functions.append(model.functions[0])
    return model


GRAPHS = {
    "opset below zero": (build([relu()], opset=-(2**63)), "imports version -9223372036854775808"),
    "another domain's version below zero": (imports(-1), "imports version -1 of a domain"),
    "another domain's version past what can be looked up": (
        imports(2**31),
        "imports version 2147483648 of a domain",
    ),
    "another domain's version of 2^62": (imports(2**62), "imports version 4611686018427387904"),
    "one function twice": (one_function_twice(), "two functions are named 'F'"),
    "a function that calls itself": (calling({"F": ["F"]}), "'F' calls itself"),
    "functions that call each other": (
        calling({"F": ["Relu", "G"], "G": ["H"], "H": ["F"]}),
        "calls itself, or too many in a row",
    ),
    "functions in too long a row": (
        calling({f"F{i}": [f"F{i + 1}"] for i in range(120)} | {"F120": ["Relu"]}),
        "calls itself, or too many in a row",
    ),
    "functions that stand for billions of nodes": (
        calling({f"F{i}": [f"F{i + 1}"] * 4 for i in range(16)} | {"F16": ["Relu"]}),
        "its functions stand for 4,294,967,296 nodes",
    ),
    "newlines in names": (
        build([relu(source="no\nsuch\ntensor")]),
        r"reads 'no\\nsuch\\ntensor'",
    ),
    "new opset": (build([relu()], opset=999), "opset 999"),
    "no default opset": (
        helper.make_model(
            conv().graph, opset_imports=[helper.make_opsetid("com.microsoft", 1)], ir_version=8
        ),
        "imports no version",
    ),
    "dangling input": (build([relu(source="z")]), "Relu 'relu' reads 'z', which nothing makes"),
    "dangling output": (build([relu(target="z")]), "graph output 'y'"),
    "made twice": (build([relu(), relu("again")]), "'y' is made twice, again by Relu 'again'"),
    "made over an input": (build([relu(target="x")], outputs=["x"]), "'x' is made twice"),
    "made over a weight": (
        build([relu()], weights=[numpy_helper.from_array(BIAS, "y")]),
        "'y' is made twice",
    ),
    "two inputs": (build([relu()], inputs=["x", "x"]), "two inputs are named 'x'"),
    "two weights": (
        build([relu()], weights=[numpy_helper.from_array(BIAS, "w")] * 2),
        "two initializers are named 'w'",
    ),
    "dangling in a body": (
        build([branch(body([relu("r", "z", "q")], ["q"]), OK_BODY)], inputs=["x", CONDITION]),
        "'z', which nothing makes",
    ),
    "shadowing in a body": (
        build([branch(body([relu("r", "x", "x")], ["x"]), OK_BODY)], inputs=["x", CONDITION]),
        "'x' is made twice",
    ),
    "unknown attribute": (build([relu(slope=1.0)]), "Unrecognized attribute: slope.*Name: relu"),
    "attribute type": (
        build([helper.make_node("Conv", ["x", "x"], ["y"], name="conv", pads="SAME")]),
        "pads.*Name: conv",
    ),
    "missing inputs": (build([helper.make_node("Conv", [], ["y"], name="c")]), "input size 0"),
    "element type": (
        build([relu()], weights=[typed_tensor(data_type=99, dims=[2])]),
        "'w' has element type 99",
    ),
    "negative dims": (
        build([relu()], weights=[typed_tensor(data_type=FLOAT, dims=[-2])]),
        r"dims \[-2\]",
    ),
    "more dims than an array has": (
        build([relu()], weights=[typed_tensor(data_type=FLOAT, dims=[1] * 65, raw_data=bytes(4))]),
        "'w' is larger than any tensor can be",
    ),
    "more bytes than an array has, but for an empty axis": (
        build([relu()], weights=[typed_tensor(data_type=FLOAT, dims=[0, 2**62, 2**62])]),
        "'w' is larger than any tensor can be",
    ),
    "more bytes than an array has": (
        build([relu()], weights=[typed_tensor(data_type=FLOAT, dims=[2**31, 2**30])]),
        "'w' is larger than any tensor can be",
    ),
    "IR version below zero": (build([relu()], ir_version=-5), "no graph or no ir_version"),
    "two versions of one domain": (own_versions(("", 17), ("", 13)), "several versions"),
    "two versions under two names": (own_versions(("", 17), ("ai.onnx", 18)), "several versions"),
}


@pytest.mark.parametrize(("model", "said"), GRAPHS.values(), ids=GRAPHS)
def test_broken_graphs_are_told_in_one_line(model, said):
    with pytest.raises(ModelError, match=said) as error:
        io.read(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [b"relu_op", b"tensor_y", b"node_1"])
def test_names_that_are_not_utf8_are_told(tmp_path, name):
    node = helper.make_node("relu_op", ["x"], ["tensor_y"], name="node_1", domain="org.example")
    content = build([node], outputs=["tensor_y"]).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content.replace(name, b"\xff" * len(name)))
    with pytest.raises(ModelError, match="not UTF-8"):
        io.read(path)


def untyped_output():
    model = build([relu()])
    model.graph.output[0].ClearField("type")
    return model


def nameless():
    model = build([relu()])
    model.graph.name = ""
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.value_info.add(name="z")
    return model


ACCEPTED = {
    "the last version that can be looked up": imports(2**31 - 1),
    "one version twice": own_versions(("", 17), ("ai.onnx", 17), ("", 17)),
    "as many dims as an array has": build(
        [relu()], weights=[typed_tensor(data_type=FLOAT, dims=[1] * 64, raw_data=bytes(4))]
    ),
    "functions that call others": calling({"F": ["G", "Relu", "G"], "G": ["Relu"]}),
    "contrib operator": build(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        imports=[helper.make_opsetid("com.microsoft", 1)],
    ),
    "domain not imported": build([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]),
    "unknown domain": build(
        [helper.make_node("Foo", ["x"], ["y"], domain="org.example", bar=1)],
        imports=[helper.make_opsetid("org.example", 4)],
    ),
    "plugin in the default domain": build(
        [helper.make_node("EfficientNMS_TRT", ["x"], ["y"], plugin_version="1")]
    ),
    "output without a type": untyped_output(),
    "graph without a name": nameless(),
    "weights that are no inputs before IR version 4": build(
        [helper.make_node("Add", ["x", "b"], ["y"])],
        weights=[numpy_helper.from_array(BIAS[:1], "b")],
        ir_version=3,
        opset=8,
    ),
    "opset 6": build([helper.make_node("Add", ["x", "x"], ["y"], broadcast=1)], opset=6),
    "body": build([branch(OK_BODY, body([relu("s", "x", "t")], ["t"]))], inputs=["x", CONDITION]),
    "no nodes": build([], outputs=["x"]),
    "weight as output": build(
        [relu()], outputs=["y", value("b", (8,))], weights=[numpy_helper.from_array(BIAS, "b")]
    ),
    "everything": rich(),
}


@pytest.mark.parametrize("model", ACCEPTED.values(), ids=ACCEPTED)
def test_models_that_runtimes_take_are_taken(model):
    assert io.read(model).model == model
