"""Raising a model to a newer opset: onnx's converter, and what it would lose kept as it is.

The converter gets a copy without weights. From what it gives back, only nodes that differ are
taken, and tensors that they need; every message that it leaves as it is stays the one that was
read, with its documentation, metadata and names.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, version_converter

from onnxfuse.errors import ModelError
from onnxfuse.hollow import HOLDING, hollow, is_external
from onnxfuse.io.files import one_line
from onnxfuse.meanings import Mender, drop_masks, refusals
from onnxfuse.messages import all_names, attributes, bodies, operator
from onnxfuse.shapes import default_opset, schema

_STANDARD = ("", "ai.onnx")


def raise_opset(model: onnx.ModelProto, opset: int, why: str) -> None:
    """Raises a model to an opset, and to the IR version that it needs; changes the model.

    Args:
        model: The model. If it is that new already, only its IR version may change.
        opset: The opset.
        why: What needs it, for messages.

    Raises:
        ModelError: An operator in it cannot be converted, or the installed onnx does not know the
            opset.
    """
    own = default_opset(model)
    where = f"{why} needs opset {opset}, the model has {own}"
    if opset > onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        raise ModelError(
            f"{why} needs opset {opset}; the installed onnx {onnx.__version__} knows up to {newest}"
        )
    if own < opset:
        _check_convertible(model, opset, where)
        drop_masks(model.graph, own)
        skeleton = _weightless(model)
        try:
            converted = version_converter.convert_version(skeleton, opset)
        except (version_converter.ConvertError, RuntimeError, IndexError) as error:
            raise ModelError(f"{where}, and cannot be raised: {one_line(error)}") from error
        _Merge(model, own).graph(model.graph, converted.graph)
        for imported in model.opset_import:
            if imported.domain in _STANDARD:
                imported.version = opset
    needed = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    if model.ir_version < 4:  # initializers are inputs there; from 4 on that would be a default
        weights = {tensor.name for tensor in model.graph.initializer}
        for index in reversed(range(len(model.graph.input))):
            if model.graph.input[index].name in weights:
                del model.graph.input[index]
    model.ir_version = max(model.ir_version, needed)


def _check_convertible(model: onnx.ModelProto, opset: int, where: str) -> None:
    """Raises ModelError for what the converter would change without a word."""
    own = default_opset(model)
    for function in model.functions:
        imported = {o.domain: o.version for o in function.opset_import}
        version = max((v for d, v in imported.items() if d in _STANDARD), default=own)
        for node in _nodes(function.node):
            if operator(node) and _since(node, version) != _since(node, opset):
                raise ModelError(
                    f"{where}, and cannot be raised: {node.op_type} in its function "
                    f"'{function.name}' is another one there"
                )
    for reason in refusals(model.graph, own, opset):
        raise ModelError(f"{where}, and cannot be raised: {reason}")


def _since(node: onnx.NodeProto, version: int) -> int:
    found = schema(node.op_type, version, "")
    return 0 if found is None else int(found.since_version)


def _nodes(nodes: object) -> Iterator[onnx.NodeProto]:
    """Nodes, and those in bodies."""
    for node in nodes:  # type: ignore[attr-defined]
        yield node
        for body in bodies(node):
            yield from _nodes(body.node)


def _weightless(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose big initializers are inputs, without functions and declared types inside."""
    copy = hollow(model)
    del copy.functions[:]
    del copy.training_info[:]
    copy.ir_version = max(copy.ir_version, 4)
    for imported in copy.opset_import:
        imported.domain = "" if imported.domain in _STANDARD else imported.domain
    given = {value.name for value in copy.graph.input}
    pending = [copy.graph]
    while pending:
        graph = pending.pop()
        del graph.value_info[:]
        for index in reversed(range(len(graph.initializer))):
            tensor = graph.initializer[index]
            if not is_external(tensor):
                continue
            if tensor.name not in given:
                given.add(tensor.name)
                copy.graph.input.append(
                    onnx.helper.make_tensor_value_info(
                        tensor.name, tensor.data_type, list(tensor.dims)
                    )
                )
            del graph.initializer[index]
        for sparse in graph.sparse_initializer:  # the converter has none
            values = sparse.values
            info = onnx.helper.make_tensor_value_info(
                values.name, values.data_type, list(sparse.dims)
            )
            copy.graph.input.append(info)
        del graph.sparse_initializer[:]
        for node in graph.node:
            node.domain = "" if node.domain in _STANDARD else node.domain
            pending.extend(bodies(node))
    return copy


class _Merge:
    """Takes over what the converter changed."""

    def __init__(self, model: onnx.ModelProto, own: int) -> None:
        self.names = set(all_names(model.graph))
        self.mender = Mender(model, own, self._unique)

    def graph(self, graph: onnx.GraphProto, converted: onnx.GraphProto) -> None:
        """Changes the nodes of a graph, and of its bodies, to those of the converted one."""
        known = {name for node in graph.node for name in node.output}
        known.update(tensor.name for tensor in graph.initializer)
        known.update(value.name for value in graph.input)
        self._rename(converted, known)
        mine = {tuple(filter(None, node.output)): node for node in graph.node}
        kept: list[onnx.NodeProto] = []
        silent = iter([node for node in graph.node if not any(node.output)])
        for node in converted.node:
            outputs = tuple(filter(None, node.output))
            own = mine.get(outputs) if outputs else next(silent)
            if own is None and node.name:
                node.name = self._unique(node.name)
            kept.extend([node] if own is None else self._merged(own, node))
        lost = {name for outputs in mine for name in outputs}
        lost -= {name for node in kept for name in node.output}
        if lost:
            raise ModelError(f"onnx's converter loses the tensor '{min(lost)}'")
        added = [tensor for tensor in converted.initializer if tensor.name not in known]
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(added)

    def _rename(self, converted: onnx.GraphProto, known: set[str]) -> None:
        """Gives tensors that the converter adds names that nothing in the model has."""
        made = [name for node in converted.node for name in node.output]
        made += [tensor.name for tensor in converted.initializer]
        names = {name: self._unique(name) for name in made if name and name not in known}
        for node in converted.node:
            for field in (node.input, node.output):
                for index, name in enumerate(field):
                    if name in names:
                        field[index] = names[name]
        for tensor in converted.initializer:
            tensor.name = names.get(tensor.name, tensor.name)

    def _unique(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            name, count = f"{base}_{count}", count + 1
        self.names.add(name)
        return name

    def _merged(self, own: onnx.NodeProto, converted: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node as it was, with what the converter changed in it, and had to."""
        mine, new = attributes(own), attributes(converted)
        node = _copy(own)
        if not _is_same(own, converted):
            node.op_type = converted.op_type
            del node.input[:]
            node.input.extend(converted.input)
            del node.attribute[:]
            for name, attribute in new.items():
                is_mine = name in mine and attribute.type in HOLDING
                node.attribute.append(mine[name] if is_mine else attribute)
        now = attributes(node)
        for name, attribute in new.items():
            if attribute.type == AttributeProto.GRAPH:
                self.graph(now[name].g, attribute.g)
        return self.mender.mended(own, node)


def _is_same(own: onnx.NodeProto, converted: onnx.NodeProto) -> bool:
    """Whether the converter left a node as it was; tensors and bodies are not compared."""
    mine, new = map(_settings, (own, converted))
    inputs = [list(node.input) for node in (own, converted)]
    for names in inputs:
        while names and not names[-1]:
            names.pop()
    return own.op_type == converted.op_type and inputs[0] == inputs[1] and mine == new


def _settings(node: onnx.NodeProto) -> dict[str, bytes]:
    """The node's attributes without documentation; those that hold tensors by name alone."""
    found: dict[str, bytes] = {}
    for attribute in node.attribute:
        bare = AttributeProto(name=attribute.name, type=attribute.type)
        if attribute.type not in HOLDING:
            bare.CopyFrom(attribute)
            bare.ClearField("doc_string")
        found[attribute.name] = bare.SerializeToString(deterministic=True)
    return found


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
