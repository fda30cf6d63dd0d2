"""Parallel branches that are summed, and the single convolution that they are equal to.

RepVGG, MobileOne, ACNet and the plain three-branch block differ only in which branches they sum, so
what they share stands here: the modules, and structural re-parameterization as the papers describe
it (fold each BatchNorm into its convolution, zero-pad each kernel to the largest one, write a skip
as a kernel that copies, add). All of it is plain PyTorch and shares nothing with onnxfuse, for
which it is an oracle.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONV_TYPES = tuple(CONVS.values())
NORM_TYPES = tuple(NORMS.values())


class Block(nn.Module):
    """A block whose training form computes the same as one convolution."""

    def to_conv(self) -> nn.Module:
        """The equal convolution with bias."""
        raise NotImplementedError


class Normed(nn.Sequential, Block):
    """A convolution, or a block that is equal to one, then BatchNorm."""

    def __init__(self, conv: nn.Module, norm: nn.Module):
        super().__init__(OrderedDict(conv=conv, norm=norm))

    @torch.no_grad()
    def to_conv(self) -> nn.Module:
        """The equal convolution with bias."""
        conv = reparameterize(self.conv)
        weight, bias = fold_norm(*_kernel(conv, conv), self.norm)
        conv.weight.copy_(weight)
        conv.bias = nn.Parameter(bias)
        return conv


class ConvNorm(Normed):
    """A convolution without bias, then BatchNorm: (N, C_in, *S) -> (N, C_out, *(S / stride))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
    ):
        """Pads with dilation * (kernel_size // 2) zeros; len(kernel_size) is the spatial rank."""
        rank = len(kernel_size)
        padding = tuple(dilation * (size // 2) for size in kernel_size)
        conv = CONVS[rank](
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        super().__init__(conv, NORMS[rank](out_channels))


class ParallelBranches(Block):
    """The sum of branches over one input: (N, C_in, *S) -> (N, C_out, *(S / stride)).

    A branch is a ConvNorm, a convolution, a BatchNorm or nn.Identity, and at least one of them has
    a convolution. Convolutions share stride, dilation and groups; their kernels have odd sizes and
    are padded so that the centre stays on the output's own pixel.
    """

    def __init__(self, branches: Iterable[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Sums the branches from first to last."""
        first, *rest = self.branches
        total = first(x)
        for branch in rest:
            total = total + branch(x)
        return total

    def to_conv(self) -> nn.Module:
        """The equal convolution with bias."""
        return _merge(list(self.branches))


def activated(branches: Iterable[nn.Module]) -> nn.Sequential:
    """relu of the sum of `branches`."""
    return nn.Sequential(OrderedDict(sum=ParallelBranches(branches), relu=nn.ReLU()))


def reparameterize(network: nn.Module) -> nn.Module:
    """The deploy form of `network`: each Block becomes one convolution.

    Args:
        network: a module in eval mode, in any floating dtype; it is left as it is.

    Returns:
        A new module in eval mode that computes the same up to rounding, without BatchNorm.
    """
    return _replace_blocks(copy.deepcopy(network)).eval()


def _replace_blocks(module: nn.Module) -> nn.Module:
    """Replaces the blocks inside `module` in place; returns it, or its convolution if it is one."""
    if isinstance(module, Block):
        return module.to_conv()
    for name, child in module.named_children():
        setattr(module, name, _replace_blocks(child))
    return module


@torch.no_grad()
def _merge(branches: list[nn.Module]) -> nn.Module:
    """One convolution equal to the sum of `branches`."""
    convs = [branch.conv if isinstance(branch, Normed) else branch for branch in branches]
    convs = [conv for conv in convs if isinstance(conv, CONV_TYPES)]
    like = convs[0]
    kernel_size = tuple(map(max, zip(*(conv.kernel_size for conv in convs), strict=True)))
    padding = (
        dilation * (size // 2) for size, dilation in zip(kernel_size, like.dilation, strict=True)
    )
    kernels = [_kernel(branch, like) for branch in branches]
    merged = type(like)(
        like.in_channels,
        like.out_channels,
        kernel_size,
        stride=like.stride,
        padding=tuple(padding),
        dilation=like.dilation,
        groups=like.groups,
    ).to(like.weight)
    merged.weight.copy_(sum(_pad(weight, kernel_size) for weight, _ in kernels))
    merged.bias.copy_(sum(bias for _, bias in kernels))
    return merged


def _kernel(branch: nn.Module, like: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (C_out, C_in / groups, *kernel) and bias (C_out,) of one branch.

    `like` is a convolution of the same block: it gives a skip branch channels, groups and dtype.
    """
    if isinstance(branch, CONV_TYPES):
        zero = branch.weight.new_zeros(branch.out_channels)
        return branch.weight, zero if branch.bias is None else branch.bias
    if isinstance(branch, Normed):
        return fold_norm(*_kernel(branch.conv, like), branch.norm)
    if isinstance(branch, NORM_TYPES):
        return fold_norm(*_identity(like), branch)
    if isinstance(branch, nn.Identity):
        return _identity(like)
    raise TypeError(f"no branch of a re-parameterizable block: {type(branch).__name__}")


def fold_norm(weight: Tensor, bias: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """norm(w * x + b) = (s w) * x + s (b - mean) + shift, with s = gain / sqrt(var + eps)."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shape = (-1, *[1] * (weight.ndim - 1))
    return weight * scale.reshape(shape), (bias - norm.running_mean) * scale + norm.bias


def _identity(like: nn.Module) -> tuple[Tensor, Tensor]:
    """A pointwise kernel that copies: output c reads input c % (C_in / groups) of its group."""
    channels, group_width = like.out_channels, like.in_channels // like.groups
    weight = like.weight.new_zeros(channels, group_width, *[1] * len(like.kernel_size))
    output = torch.arange(channels)
    weight[output, output % group_width] = 1
    return weight, like.weight.new_zeros(channels)


def _pad(weight: Tensor, kernel_size: tuple[int, ...]) -> Tensor:
    """Zero taps all around, so that an odd kernel keeps its centre in one of `kernel_size`."""
    widths: list[int] = []
    for have, want in zip(reversed(weight.shape[2:]), reversed(kernel_size), strict=True):
        widths += [(want - have) // 2] * 2
    return functional.pad(weight, widths)
