"""The convolution written by hand, as textbooks do: gather the windows, then one matrix product.

Chellapilla, Puri, Simard: "High Performance Convolutional Neural Networks for Document Processing",
IWFHR 2006, where the windows become the columns of a matrix (im2col).

With K = C_in * kh * kw and P = H_out * W_out the columns are (N, K, P), and weight (C_out, K) @
columns + bias is the convolution. The modules differ in how they gather and multiply; each equals
torch.nn.functional.conv2d, and is one nn.Conv2d in deployment: (N, C_in, H, W) -> (N, C_out, H_out,
W_out). The exporters take them at fixed sizes, and all but StridedConv2d at symbolic ones too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.branches import Block, Normed
from models.classifier import Classifier

Pair = tuple[int, int]

NETWORK_LAYERS = ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1))  # C_out and stride


class HandWrittenConv2d(Block):
    """Parameters and geometry of a convolution without groups; subclasses say how to compute it.

    weight has shape (C_out, C_in, kh, kw) and bias (C_out,), initialized as nn.Conv2d's.
    """

    groups = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
    ):
        """Arguments as of nn.Conv2d, spatial ones as (vertical, horizontal)."""
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.weight, self.bias = conv.weight, conv.bias
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation

    def padded(self, x: Tensor) -> Tensor:
        """x with `padding` zeros on both sides of each spatial axis."""
        vertical, horizontal = self.padding
        return functional.pad(x, (horizontal, horizontal, vertical, vertical))

    def output_size(self, x: Tensor) -> Pair:
        """(H_out, W_out) for an input x of shape (N, C_in, H, W), not yet padded."""
        geometry = zip(
            x.shape[2:], self.padding, self.dilation, self.kernel_size, self.stride, strict=True
        )
        # a kernel of k taps spans d (k - 1) + 1 pixels
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in geometry)
        return height, width

    @torch.no_grad()
    def to_conv(self) -> nn.Conv2d:
        """The equal convolution with bias."""
        out_channels, group_width = self.weight.shape[:2]
        conv = nn.Conv2d(
            group_width * self.groups,
            out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        ).to(self.weight)
        conv.weight.copy_(self.weight)
        conv.bias.copy_(self.bias)
        return conv


class SliceConv2d(HandWrittenConv2d):
    """Columns from one strided slice for each tap of the kernel, stacked."""

    def columns(self, x: Tensor) -> Tensor:
        """The windows of x (N, C_in, H, W) as columns (N, K, P)."""
        (height, width), (down, right) = self.output_size(x), self.stride
        (tall, wide), (below, beside) = self.kernel_size, self.dilation
        x = self.padded(x)
        taps = [
            x[:, :, i : i + down * height : down, j : j + right * width : right]
            for i in range(0, tall * below, below)
            for j in range(0, wide * beside, beside)
        ]
        return torch.stack(taps, dim=2).flatten(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """weight (C_out, K) @ columns (N, K, P) + bias (C_out, 1)."""
        y = self.weight.flatten(1) @ self.columns(x) + self.bias[:, None]
        return y.reshape(x.shape[0], -1, *self.output_size(x))


class GroupedSliceConv2d(SliceConv2d):
    """SliceConv2d with groups, as one batched product: weight has C_in / groups input channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
    ):
        """As HandWrittenConv2d; `groups` divides C_in and C_out."""
        width = in_channels // groups
        super().__init__(width, out_channels, kernel_size, stride, padding, dilation)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """weight (G, C_out / G, K / G) @ columns (N, G, K / G, P) + bias."""
        out_channels = self.weight.shape[0]
        rows = self.weight.reshape(self.groups, out_channels // self.groups, -1)
        columns = self.columns(x).unflatten(1, (self.groups, -1))
        y = (rows @ columns).flatten(1, 2) + self.bias[:, None]
        return y.unflatten(2, self.output_size(x))


class UnfoldConv2d(HandWrittenConv2d):
    """Columns from F.unfold, multiplied from the right, as in the documentation of nn.Unfold."""

    def forward(self, x: Tensor) -> Tensor:
        """(columns^T (N, P, K) @ weight^T (K, C_out) + bias)^T."""
        columns = functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        y = columns.transpose(1, 2) @ self.weight.flatten(1).t() + self.bias
        return y.transpose(1, 2).reshape(x.shape[0], -1, *self.output_size(x))


class GatherConv2d(HandWrittenConv2d):
    """Columns by advanced indexing, the batch among the columns, as in CS231n's assignments."""

    def indices(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Channel (K, 1), row (K, P) and column (K, P) of each entry, in the padded x."""
        (height, width), (down, right) = self.output_size(x), self.stride
        tall, wide = self.kernel_size
        channels = self.weight.shape[1]
        k = torch.arange(channels).repeat_interleave(tall * wide)
        i = self.dilation[0] * torch.arange(tall).repeat_interleave(wide).repeat(channels)
        j = self.dilation[1] * torch.arange(wide).repeat(tall * channels)
        rows = (down * torch.arange(height))[:, None].expand(height, width).flatten()
        columns = (right * torch.arange(width)).repeat(height)
        return k[:, None], i[:, None] + rows, j[:, None] + columns

    def forward(self, x: Tensor) -> Tensor:
        """weight (C_out, K) @ columns (K, P * N) + bias, the batch moved back to the front."""
        k, i, j = self.indices(x)
        columns = self.padded(x)[:, k, i, j].permute(1, 2, 0).flatten(1)
        y = self.weight.flatten(1) @ columns + self.bias[:, None]
        return y.reshape(-1, *self.output_size(x), x.shape[0]).permute(3, 0, 1, 2)


class StridedConv2d(HandWrittenConv2d):
    """Windows as a strided view of the padded input, and an einsum.

    The tracing exporter keeps the strides of its example as constants, so that its model is right
    only at the example's H and W; torch's default exporter computes them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Weight (C_out, C_in, kh, kw) times windows (N, C_in, kh, kw, H_out, W_out), + bias."""
        size = (*self.kernel_size, *self.output_size(x))
        x = self.padded(x).contiguous()
        image, channel, row, pixel = x.stride()
        (below, beside), (down, right) = self.dilation, self.stride
        steps = (below * row, beside * pixel, down * row, right * pixel)
        windows = x.as_strided((*x.shape[:2], *size), (image, channel, *steps))
        y = torch.einsum("ocij,ncijhw->nohw", self.weight, windows)
        return y + self.bias[:, None, None]


def im2col_net() -> Classifier:
    """Six layers relu(BN(conv3x3(x))) for colour images of 32x32 pixels and ten classes.

    Slices, unfolding and indexing take turns: what the exporters take at symbolic sizes.
    """
    ways = (SliceConv2d, UnfoldConv2d, GatherConv2d) * 2
    layers: list[nn.Module] = []
    channels = 3
    for way, (out_channels, stride) in zip(ways, NETWORK_LAYERS, strict=True):
        conv = way(channels, out_channels, (3, 3), (stride, stride), padding=(1, 1))
        layers += [Normed(conv, nn.BatchNorm2d(out_channels)), nn.ReLU()]
        channels = out_channels
    return Classifier(layers, channels, num_classes=10)
