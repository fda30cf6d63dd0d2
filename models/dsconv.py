"""Distribution-shift convolution.

Gennari do Nascimento, Fawcett, Prisacariu: "DSConv: Efficient Convolution Operator", ICCV 2019
(arXiv:1901.01928).

The weight is an integer kernel (variable quantized kernel, VQK), of which each block of B input
channels is scaled and shifted, for each output channel and tap of its own (kernel distribution
shift, KDS), and then each output channel as a whole (channel distribution shift, CDS). In training
it is put together at every call; in deployment it is the weight of one nn.Conv2d.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.branches import Block, Normed
from models.classifier import Classifier

NETWORK_LAYERS = ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1))  # C_out and stride


class DSConv2d(Block):
    """A convolution with a weight of scaled integers: (N, C_in, H, W) -> (N, C_out, H_out, W_out).

    With C = C_in / groups, the buffer `quantized` is int8 of shape (C_out, C, kh, kw). Parameters:
    `block_scale` and `block_shift` (C_out, ceil(C / B), kh, kw), the last block being smaller where
    B does not divide C; `channel_scale` and `channel_shift` (C_out, 1, 1, 1); `bias` (C_out,).
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        block_size: int = 64,
        bits: int = 4,
        block_shift: bool = False,
        channel_shift: bool = False,
    ):
        """Quantizes the weight of `conv`; its bias and geometry stay.

        Args:
            conv: a convolution that pads with zeros.
            block_size: B.
            bits: width of the integers, 2 to 8.
            block_shift: whether KDS has a shift as well as a scale; it begins at 0.
            channel_shift: whether there is a CDS; it begins at scale 1 and shift 0.

        Raises:
            ValueError: `bits` is not among 2 to 8.
        """
        if not 2 <= bits <= 8:
            raise ValueError(f"bits is {bits}, not one of 2 to 8")
        super().__init__()
        self.block_size = block_size
        self.stride, self.padding = conv.stride, conv.padding
        self.dilation, self.groups = conv.dilation, conv.groups
        quantized, scale = quantize(conv.weight.detach(), block_size, bits)
        self.register_buffer("quantized", quantized)
        self.block_scale = nn.Parameter(scale)
        self.block_shift = nn.Parameter(torch.zeros_like(scale)) if block_shift else None
        channel = scale.new_ones(conv.out_channels, 1, 1, 1)
        self.channel_scale = nn.Parameter(channel) if channel_shift else None
        self.channel_shift = nn.Parameter(torch.zeros_like(channel)) if channel_shift else None
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())

    def weight(self) -> Tensor:
        """channel_scale * (block_scale * quantized + block_shift) + channel_shift."""
        weight = self.quantized.to(self.block_scale.dtype) * self._over_channels(self.block_scale)
        if self.block_shift is not None:
            weight = weight + self._over_channels(self.block_shift)
        if self.channel_scale is not None:
            weight = weight * self.channel_scale + self.channel_shift
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Convolves with the weight put together from integers and shifts."""
        return functional.conv2d(
            x, self.weight(), self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    @torch.no_grad()
    def to_conv(self) -> nn.Conv2d:
        """The equal convolution, with bias if there is one."""
        weight = self.weight()
        conv = nn.Conv2d(
            weight.shape[1] * self.groups,
            weight.shape[0],
            weight.shape[2:],
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias=self.bias is not None,
        ).to(weight)
        conv.weight.copy_(weight)
        if self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv

    def _over_channels(self, per_block: Tensor) -> Tensor:
        """(C_out, ceil(C / B), kh, kw) -> (C_out, C, kh, kw)."""
        repeated = per_block.repeat_interleave(self.block_size, dim=1)
        return repeated[:, : self.quantized.shape[1]]


def quantize(weight: Tensor, block_size: int, bits: int) -> tuple[Tensor, Tensor]:
    """Integers q and scales s with s * q close to `weight`, block by block.

    In each block the value w of largest magnitude becomes -2^(bits - 1), so that a scale may be
    negative; the others are rounded, and s = <w, q> / <q, q> minimizes ||w - s q||.

    Args:
        weight: shape (C_out, C, kh, kw).
        block_size: number B of input channels in a block.
        bits: width of the integers.

    Returns:
        q in int8 of the shape of `weight`; s of shape (C_out, ceil(C / B), kh, kw).
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    integers, scales = [], []
    for block in weight.split(block_size, dim=1):
        peak = block.gather(1, block.abs().argmax(dim=1, keepdim=True))
        step = torch.where(peak == 0, 1, peak / low)
        q = (block / step).round().clamp(low, high)
        square = (q * q).sum(dim=1, keepdim=True)
        scales.append((block * q).sum(dim=1, keepdim=True) / square.clamp(min=1))
        integers.append(q)
    return torch.cat(integers, dim=1).to(torch.int8), torch.cat(scales, dim=1)


def dsconv_net() -> Classifier:
    """Six layers relu(BN(dsconv3x3(x))) for colour images of 32x32 pixels and ten classes.

    The blocks have eight channels; every second layer shifts blocks and channels too.
    """
    layers: list[nn.Module] = []
    channels = 3
    for index, (out_channels, stride) in enumerate(NETWORK_LAYERS):
        conv = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        shifts = index % 2 == 1
        conv = DSConv2d(conv, block_size=8, block_shift=shifts, channel_shift=shifts)
        layers += [Normed(conv, nn.BatchNorm2d(out_channels)), nn.ReLU()]
        channels = out_channels
    return Classifier(layers, channels, num_classes=10)
