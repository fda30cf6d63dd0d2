"""ConvTransposes in a row, as pointwise Convs in front of one DepthToSpace.

    ConvTranspose k, stride k -> elementwise -> ConvTranspose l, stride l
        ->  Conv 1x1 -> elementwise -> Conv 1x1 -> DepthToSpace k * l

A ConvTranspose whose windows do not overlap gives each pixel's block of k x k outputs by itself: a
pointwise Conv gives the same numbers as channels, (row, column, channel), and DepthToSpace puts
them in place. What works on every pixel by itself may do so before they are. A pointwise map of C
channels becomes one of k * k * C, the same for each place in the block.

1. Images of two dimensions, in float32: ONNX Runtime has no DepthToSpace in other float types.
2. The first is a ConvTranspose with kernel = stride, the same in both dimensions, without padding,
   output padding, a given shape or groups; the rest are such ConvTransposes, Convs with a kernel
   and strides of 1, no padding and no groups, and elementwise operators of one tensor and numbers.
3. Weights and biases are constant, and nobody else needs what lies between.
4. It pays: the image in between, which is not written and read, costs so many times by the cost
   model what the products with zeros do and moving the result into place, as it took when measured
   (`measured`). One ConvTranspose alone does not pay.

Tried when there is nothing left to fold: a scale behind a ConvTranspose joins it before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnxfuse import cost
from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import Array, Graph
from onnxfuse.lift.site import Site, View
from onnxfuse.messages import operator
from onnxfuse.rewrites.measured import paying_from
from onnxfuse.rewrites.pointwise import is_pointwise
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in

_IMAGE = View.image(4)
_PASSES = 3  # over an image that is written, scattered into place and read again
_LARGEST_WEIGHT = 1 << 16  # entries
_LONGEST = 24
_PROBE_SIZES = ((1, 1, 1), (2, 2, 3))  # N, H, W


@dataclass(frozen=True)
class _Map:
    """A ConvTranspose without overlaps, or a pointwise Conv.

    Attributes:
        index: The node's.
        block: Its stride; 1 for a Conv.
        weight: (block, block, C_out, C_in), in the model's type.
        bias: (C_out,), in the model's type.
    """

    index: int
    block: int
    weight: Array
    bias: Array


@dataclass(frozen=True)
class _Chain:
    """What goes: the nodes by index, in order, and those of them that are maps."""

    nodes: tuple[int, ...]
    maps: tuple[_Map, ...]


def delay_shuffles(graph: Graph, skip: frozenset[str], *, margin: float | None = None) -> Outcome:
    """Puts pointwise Convs and one DepthToSpace in the place of ConvTransposes in a row.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.
        margin: What the gain has to exceed; by default, from where on it paid when measured.

    Raises:
        CertificateError: If they do not agree with the nodes they replace.
    """
    if not graph.takes_initializers:
        return Outcome()
    outcome = Outcome()
    taken: set[int] = set()
    needed = paying_from("shuffles") if margin is None else margin
    for index, node in enumerate(graph.nodes):
        chain = None if index in taken else _chain(graph, index, skip, needed)
        if chain is None:
            continue
        made = _replaced(graph, chain)
        if isinstance(made, Refusal):
            outcome.refusals.append((node.name or node.output[0], node.op_type, made.reason))
        else:
            taken.update(chain.nodes)
            outcome.folds.append(made)
    graph.commit(prune=bool(outcome.folds))
    return outcome


def gain_at(graph: Graph, index: int) -> float | None:
    """The modelled gain of the longest chain behind a node; None where there is none."""
    chain = _chain(graph, index, frozenset(), 0.0)
    return None if chain is None else _gain(chain.maps)


def _chain(graph: Graph, first: int, skip: frozenset[str], margin: float) -> _Chain | None:
    """The longest chain behind a ConvTranspose that pays."""
    nodes: list[int] = []
    maps: list[_Map] = []
    best: _Chain | None = None
    index: int | None = first if operator(graph.nodes[first]) == "ConvTranspose" else None
    while index is not None and graph.nodes[index].op_type not in skip:
        found = _map(graph, index)
        if len(nodes) == _LONGEST or (found is not None and not maps and found.block == 1):
            break
        if found is not None:
            if maps and maps[-1].weight.shape[2] != found.weight.shape[3]:
                break
            maps.append(found)
        elif not maps or not is_pointwise(graph, index) or len(graph.data(index)) != 1:
            break
        nodes.append(index)
        if found is not None and len(maps) > 1 and _gain(maps) > margin:
            best = _Chain(tuple(nodes), tuple(maps))
        index = graph.only_reader(graph.nodes[index].output[0])
    return best


def _map(graph: Graph, index: int) -> _Map | None:
    """A node as a map from pixels to blocks of pixels, or None."""
    node = graph.nodes[index]
    transposed = operator(node) == "ConvTranspose"
    if not transposed and operator(node) != "Conv":
        return None
    site = Site(graph, node, node.output[0], _IMAGE)
    shape = site.shape_of(site.input(1))
    if shape is None or len(shape) != 4 or 0 in shape:
        return None
    kernel = shape[2:]
    strides = site.integer_list("strides") or (1, 1)
    plain = (
        strides == kernel == (site.integer_list("kernel_shape") or kernel)
        and kernel[0] == kernel[1]
        and (transposed or kernel == (1, 1))
        and set(site.integer_list("dilations") or (1,)) == {1}
        and not any(site.integer_list("pads") or ())
        and not any(site.integer_list("output_padding") or ())
        and site.integer_list("output_shape") is None
        and site.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and site.integer("group", 1) == 1
    )
    kinds = {graph.type(name).elem_type for name in (*node.input, *node.output) if name}
    outputs = shape[1] if transposed else shape[0]
    bias_shape = site.shape_of(site.input(2)) if site.input(2) else (outputs,)
    if not plain or kinds != {TensorProto.FLOAT} or bias_shape != (outputs,):
        return None
    weight = np.asarray(graph.constant(site.input(1)))
    bias = graph.constant(site.input(2)) if site.input(2) else np.zeros(bias_shape, weight.dtype)
    assert bias is not None
    turned = weight.transpose((2, 3, 1, 0) if transposed else (2, 3, 0, 1))
    return _Map(index, kernel[0], turned, bias)


# Prices ----------------------------------------------------------------------------------------


def _gain(maps: Sequence[_Map]) -> float:
    """The time that a chain saves over the time that it takes, for every pixel in front of it."""
    saved, zeros, block = 0.0, 0, 1
    for one in maps:
        outputs, inputs = one.weight.shape[2:]
        zeros += (block**2 - 1) * block**2 * inputs * one.block**2 * outputs
        block *= one.block
        if block**4 * inputs * outputs // one.block**2 > _LARGEST_WEIGHT:
            return 0.0
        if one is not maps[-1]:
            saved += _moved(block**2 * outputs)
    spent = cost.DENSE_MAC * zeros + _moved(block**2 * maps[-1].weight.shape[2])
    return saved / spent


def _moved(elements: int) -> float:
    return _PASSES * cost.BYTE * cost.ELEMENT * elements


# Making it -------------------------------------------------------------------------------------


def _replaced(graph: Graph, chain: _Chain) -> Fold | Refusal:
    """Puts pointwise Convs, what lies between them and a DepthToSpace in the place of a chain."""
    target = graph.nodes[chain.nodes[-1]].output[0]
    name = source = graph.nodes[chain.nodes[0]].input[0]
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {}
    maps = {one.index: one for one in chain.maps}
    block = 1
    for index in chain.nodes:
        old = graph.nodes[index]
        new = onnx.NodeProto()
        if index in maps:
            one = maps[index]
            stored = [graph.unique_name(f"{target}/{role}") for role in ("weight", "bias")]
            values = _spread(one, block)
            constants |= dict(zip(stored, values, strict=True))
            block *= one.block
            new = onnx.helper.make_node("Conv", [name, *stored], [""], kernel_shape=[1, 1])
        else:
            new.CopyFrom(old)
            (data,) = graph.data(index)
            new.input[:] = [name if given == data else given for given in old.input]
        new.name = new.output[0] = name = graph.unique_name(f"{target}/{new.op_type}")
        nodes.append(new)
    nodes.append(
        onnx.helper.make_node(
            "DepthToSpace",
            [name],
            [target],
            name=graph.unique_name(f"{target}/DepthToSpace"),
            blocksize=block,
        )
    )
    replacement = Replacement(
        kind="pointwise Convs",
        formula=f"y = DepthToSpace(.. Conv 1x1 ..), by {block}",
        source=source,
        target=target,
        before=chain.nodes,
        gone=chain.nodes,
        nodes=nodes,
        constants=constants,
    )
    channels = chain.maps[0].weight.shape[3]
    certificate = certify_equal(graph, replacement, _probes(source, channels))
    if isinstance(certificate, Refusal):
        return certificate
    return put_in(graph, replacement, certificate)


def _spread(one: _Map, block: int) -> tuple[Array, Array]:
    """Weight and bias of a map where every pixel in front is a block of block x block by now.

    Channels are (row, column, channel) in DepthToSpace's order, whatever number of blocks they
    are made of.
    """
    size, outputs, inputs = one.block, *one.weight.shape[2:]
    weight = np.zeros((block, size, block, size, outputs, block, block, inputs), one.weight.dtype)
    for row in range(block):
        for column in range(block):
            weight[row, :, column, :, :, row, column] = one.weight
    rows, columns = (block * size) ** 2 * outputs, block**2 * inputs
    bias = np.tile(one.bias, (block * size) ** 2)
    return weight.reshape(rows, columns, 1, 1), bias


def _probes(source: str, channels: int) -> Iterator[dict[str, Array]]:
    rng = np.random.default_rng(zlib.crc32(source.encode()))
    for images, height, width in _PROBE_SIZES:
        yield {source: rng.standard_normal((images, channels, height, width))}
