"""Models to read and write, and ways to spoil them."""

import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT

RNG = np.random.default_rng(7)

KERNEL = RNG.standard_normal((8, 8, 3, 3)).astype(np.float32)  # 2304 bytes

BIAS = RNG.standard_normal(8).astype(np.float32)


def value(name, shape=("N", 8, "H", "W"), elem_type=FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def build(nodes, inputs=("x",), outputs=("y",), weights=(), ir_version=8, opset=17, **options):
    graph = helper.make_graph(
        nodes,
        "net",
        [value(i) if isinstance(i, str) else i for i in inputs],
        [value(o) if isinstance(o, str) else o for o in outputs],
        list(weights),
    )
    imports = [helper.make_opsetid("", opset), *options.pop("imports", ())]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, **options)


def conv(kernel=KERNEL):
    weights = [numpy_helper.from_array(kernel, "w"), numpy_helper.from_array(BIAS, "b")]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1] * 4)
    return build([node], weights=weights)


def relu(name="relu", source="x", target="y", **options):
    return helper.make_node("Relu", [source], [target], name=name, **options)


def unknown_field(number, text):
    """A field that no message of onnx has, in wire format."""
    tag = number << 3 | 2
    return bytes([tag & 127 | 128, tag >> 7, len(text)]) + text


def rich():
    """A model with something in every corner that a careless tool forgets."""
    model = conv()
    model.producer_name, model.domain, model.model_version = "someone", "org.example", 3
    model.doc_string = "a model"
    helper.set_model_props(model, {"names": "{0: 'cat'}", "stride": "32"})
    function = helper.make_function(
        "org.example",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    model.training_info.add().algorithm.name = "sgd"
    graph = model.graph
    graph.doc_string = "a graph"
    graph.metadata_props.add(key="graph", value="here")
    graph.node[0].metadata_props.add(key="layer", value="stem")
    graph.node[0].doc_string = "a node"
    graph.input[0].doc_string = "an image"
    graph.input[0].type.denotation = "IMAGE"
    graph.value_info.append(value("y"))
    graph.initializer[0].doc_string = "a weight"
    note = graph.quantization_annotation.add(tensor_name="y")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            helper.make_tensor("s", FLOAT, [1], [2.0]),
            helper.make_tensor("", TensorProto.INT64, [1], [3]),
            [5],
        )
    )
    for message in (model, graph, graph.node[0], graph.initializer[0]):
        message.MergeFromString(unknown_field(1000, b"from the future"))
    return model


def external(model, folder, name="net", location="net.bin"):
    """Saves a model with its initializers in a file of their own."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = b"\0" * 64
    for tensor in copy.graph.initializer:
        raw = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        helper_entries = {"location": location, "offset": len(data), "length": len(raw)}
        data += raw
        for field in ("raw_data", "float_data", "int32_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in helper_entries.items():
            tensor.external_data.add(key=key, value=str(entry))
    (folder / location).write_bytes(data)
    path.write_bytes(copy.SerializeToString())
    return path


def run(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def body(nodes, outputs, weights=()):
    return helper.make_graph(nodes, "body", [], [value(o) for o in outputs], list(weights))


def branch(then, otherwise):
    return helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=otherwise)


CONDITION = value("c", (), TensorProto.BOOL)

OK_BODY = body([relu("r", "x", "q")], ["q"])


def point_to(path, **entries):
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = str(entries.get(entry.key, entry.value))
    path.write_bytes(model.SerializeToString())


def no_leftovers(folder):
    return not [name for name in os.listdir(folder) if name.startswith(".onnxfuse")]
