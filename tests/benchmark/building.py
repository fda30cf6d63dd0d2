"""Tiny models to measure, and how to measure them quickly."""

import onnx
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder

QUICK = {"rounds": 2, "warm_up": 0, "memory": False, "threads": 1}


def quick(models, **options):
    """`bench`, for what it says rather than for the numbers."""
    return onnxfuse.bench(models, **{**QUICK, **options})


def image_net(*shape, name="x", channels=4):
    """A Conv and a Relu on an image whose extents may be symbolic."""
    b = Builder()
    x = b.input(*shape, name=name)
    b.op("Relu", b.conv(x, channels, 4, output="t"), output="y")
    return b.model("y")


def one_node(op_type, elem_type, *shapes, result=None, **attributes):
    """A model of one node; its inputs are called a, b and so on."""
    names = "abc"[: len(shapes)]
    inputs = [
        helper.make_tensor_value_info(name, elem_type, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    output = helper.make_tensor_value_info("y", result or elem_type, None)
    node = helper.make_node(op_type, list(names), ["y"], **attributes)
    graph = helper.make_graph([node], "one", inputs, [output])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def reshaped(*extents):
    """Runs only on inputs with as many elements as the extents have."""
    b = Builder()
    x = b.input("batch", "width")
    b.op("Reshape", x, b.constant(list(extents)), output="y")
    return b.model("y")


def lookup(rows):
    """Gather: the index must be below the number of rows."""
    b = Builder()
    index = b.input("batch", "length", name="index", elem_type=TensorProto.INT64)
    b.op("Gather", b.random(rows, 3), index, output="y", axis=0)
    return b.model("y")


def sequence_length():
    """Takes a sequence of tensors."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    given = helper.make_value_info("s", kind)
    output = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    node = helper.make_node("SequenceLength", ["s"], ["n"])
    graph = helper.make_graph([node], "sequence", [given], [output])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def save(path, model):
    onnx.save(model, path)
    return path
