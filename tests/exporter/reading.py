"""What is in an exported model."""

from collections import Counter


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def dims(values):
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }
