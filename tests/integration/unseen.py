"""Small versions of published architectures that nothing in onnxfuse was written for."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

# Blocks -----------------------------------------------------------------------------------------


def norm(inputs, outputs, kernel=1, stride=1, groups=1, dilation=1):
    pad = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def layer(*args, **kwargs):
    return nn.Sequential(norm(*args, **kwargs), nn.ReLU())


def classifier(*blocks, channels=8):
    """A stem, the blocks, and a head."""
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(layer(3, 8, 3, 2), *blocks, *pooled)


class Sum(nn.Module):
    """The sum of branches over one input, with something behind it."""

    def __init__(self, *branches, then=None):
        super().__init__()
        self.branches, self.then = nn.ModuleList(branches), then or nn.Identity()

    def forward(self, x):
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return self.then(total)


class Join(Sum):
    """The branches' outputs joined along the channels."""

    def forward(self, x):
        return self.then(torch.cat([branch(x) for branch in self.branches], 1))


def residual(*layers):
    return Sum(nn.Sequential(*layers), nn.Identity())


class Shuffle(nn.Module):
    """ShuffleNetV2's unit of stride 1 (Ma et al. 2018)."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            layer(half, half), norm(half, half, 3, groups=half), layer(half, half)
        )

    def forward(self, x):
        left, right = x.chunk(2, 1)
        y = torch.cat([left, self.branch(right)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Ghost(nn.Module):
    """GhostNet's module (Han et al. 2020): cheap features from a depthwise convolution."""

    def __init__(self, inputs, outputs):
        super().__init__()
        half = outputs // 2
        self.primary, self.cheap = norm(inputs, half), norm(half, half, 3, groups=half)

    def forward(self, x):
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


def dense(channels, growth=8):
    """DenseNet's layer (Huang et al. 2017): BatchNorm in front of the convolution."""
    parts = (
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 16, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, growth, 3, padding=1, bias=False),
    )
    return Join(nn.Identity(), nn.Sequential(*parts))


def inception(channels, counted):
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=counted), layer(channels, 4))
    branches = [nn.Sequential(layer(channels, 4), layer(4, 4, k)) for k in (3, 5)]
    return Join(layer(channels, 4), *branches, pooled)


class Excite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, channels, gate):
        super().__init__()
        squeeze = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU())
        self.gate = nn.Sequential(*squeeze, nn.Conv2d(4, channels, 1), gate())

    def forward(self, x):
        return x * self.gate(x)


def inverted(channels, activation, gate):
    """MobileNetV3's and EfficientNet's block."""
    wide = 4 * channels
    expand = (norm(channels, wide), activation(), norm(wide, wide, 3, groups=wide), activation())
    return residual(*expand, Excite(wide, gate), norm(wide, channels))


class ConvNeXt(nn.Module):
    """ConvNeXt's block (Liu et al. 2022), with its layer scale."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        wide = 4 * channels
        parts = (nn.LayerNorm(channels), nn.Linear(channels, wide), nn.GELU())
        self.mix = nn.Sequential(*parts, nn.Linear(wide, channels))
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x):
        y = self.scale * self.mix(self.depthwise(x).permute(0, 2, 3, 1))
        return x + y.permute(0, 3, 1, 2)


class UNet(nn.Module):
    def __init__(self, c=8):
        super().__init__()
        self.down, self.bottom = layer(3, c, 3), layer(c, 2 * c, 3)
        up = nn.ConvTranspose2d(2 * c, c, 3, 2, 1, 1, bias=False)
        self.up = nn.Sequential(up, nn.BatchNorm2d(c), nn.ReLU())
        self.out = nn.Sequential(layer(2 * c, c, 3), nn.Conv2d(c, 2, 1))

    def forward(self, x):
        skip = self.down(x)
        return self.out(
            torch.cat([self.up(self.bottom(nn.functional.max_pool2d(skip, 2))), skip], 1)
        )


def rep(channels):
    branches = norm(channels, channels, 3), norm(channels, channels), nn.BatchNorm2d(channels)
    return Sum(*branches, then=nn.SiLU())


class Yolo(nn.Module):
    """Focus, RepConv, and a neck that goes up and down again."""

    def __init__(self, c=8):
        super().__init__()
        self.focus, self.down, self.rep = layer(12, c, 3), layer(c, 2 * c, 3, 2), rep(2 * c)
        self.reduce, self.again, self.tail = layer(2 * c, c), layer(c, c, 3, 2), rep(2 * c)

    def forward(self, x):
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        fine = self.focus(torch.cat(corners, 1))
        coarse = self.reduce(self.rep(self.down(fine)))
        fine = fine + nn.functional.interpolate(coarse, scale_factor=2)
        return self.tail(torch.cat([self.again(fine), coarse], 1))


def qarep(c):
    """QARepVGG (Chu et al. 2022): one more BatchNorm behind the sum."""
    branches = norm(c, c, 3), nn.Conv2d(c, c, 1, bias=False), nn.Identity()
    return Sum(*branches, then=nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()))


def dilated(c):
    """UniRepLKNet's dilated branches (Ding et al. 2024)."""
    shapes = (13, 1), (5, 1), (7, 2), (3, 3), (3, 4), (3, 5)
    branches = [norm(c, c, k, groups=c, dilation=d) for k, d in shapes]
    return Sum(*branches, then=nn.BatchNorm2d(c))


def diverse(c):
    """DBB (Ding et al. 2021), where no branch pads in its middle."""
    pooled = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(c))
    twice = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), norm(c, c, 3))
    return Sum(norm(c, c, 3), norm(c, c), pooled, twice, then=nn.ReLU())


class BorderedNorm(nn.Module):
    """DBB's BatchNorm that pads with what it makes of zero."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        norm = self.norm
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        value = (norm.bias - norm.running_mean * scale).view(1, -1, 1, 1)
        y = nn.functional.pad(norm(x), [1] * 4)
        y[:, :, :1] = y[:, :, -1:] = y[..., :1] = y[..., -1:] = value
        return y


def diverse_with_border(c):
    """DBB as its authors wrote it; the rim is set by ScatterND, so that branch stays."""
    conv, second = nn.Conv2d(c, c, 1, bias=False), nn.Conv2d(c, c, 3, bias=False)
    twice = nn.Sequential(conv, BorderedNorm(c), second, nn.BatchNorm2d(c))
    return Sum(norm(c, c, 3), norm(c, c), twice, then=nn.ReLU())


class Audio(nn.Sequential):
    def __init__(self, c=8):
        def part(inputs, kernel, stride=1, dilation=1):
            pad = kernel // 2 * dilation
            conv = nn.Conv1d(inputs, c, kernel, stride, pad, dilation)
            return nn.Sequential(conv, nn.BatchNorm1d(c))

        branches = part(c, 3, dilation=2), part(c, 1), part(c, 5), nn.BatchNorm1d(c)
        super().__init__(part(2, 9, 2), nn.ReLU(), Sum(*branches, then=nn.ReLU()), part(c, 1))


class Video(nn.Sequential):
    def __init__(self, c=6):
        def part(inputs, *kernel):
            conv = nn.Conv3d(inputs, c, kernel, 1, [k // 2 for k in kernel], bias=False)
            return nn.Sequential(conv, nn.BatchNorm3d(c))

        branches = part(c, 3, 3, 3), part(c, 1, 1, 1), part(c, 3, 1, 1), nn.Identity()
        up = nn.ConvTranspose3d(c, 4, 2, 2), nn.BatchNorm3d(4)
        super().__init__(part(2, 3, 3, 3), nn.ReLU(), Sum(*branches, then=nn.ReLU()), *up)


def low_rank(inputs, outputs):
    down = nn.Linear(inputs, 4, bias=False), nn.Linear(4, outputs, bias=False)
    return Sum(nn.Linear(inputs, outputs), nn.Sequential(*down))


class Attention(nn.Module):
    """A transformer block with LoRA (Hu et al. 2021) in parallel to every linear layer."""

    def __init__(self, c=16):
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.query, self.key, self.value, self.out = (low_rank(c, c) for _ in range(4))
        self.mlp = nn.Sequential(low_rank(c, 4 * c), nn.GELU(), low_rank(4 * c, c))

    def forward(self, x):
        y = self.norm(x)
        q, k, v = self.query(y), self.key(y), self.value(y)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 4, -1) @ v)
        return x + self.mlp(x)


class Normed(nn.Module):
    """(x - mean) / std in front of a padded convolution."""

    def __init__(self, then):
        super().__init__()
        self.then = then
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x):
        return self.then((x - self.mean) / self.std)


class Shared(nn.Module):
    """One convolution called three times, twice on one tensor."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        y = nn.functional.relu(self.first(self.conv(x)))
        return self.second(self.conv(y)) + self.conv(x)


def mixer(c=8):
    depthwise = nn.Conv2d(c, c, 5, groups=c, padding="same")
    spatial = residual(depthwise, nn.GELU(), nn.BatchNorm2d(c))
    channel = nn.Conv2d(c, c, 1), nn.GELU(), nn.BatchNorm2d(c)
    return classifier(spatial, *channel)


def perceptron():
    first = (
        nn.Flatten(),
        nn.BatchNorm1d(12),
        nn.Linear(12, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.3),
    )
    return nn.Sequential(*first, nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU())


# Networks ---------------------------------------------------------------------------------------

IMAGE = (2, 3, 32, 48)
OTHER = {4: (3, 3, 64, 32), 3: (3, 2, 50), 5: (1, 2, 6, 8, 8)}
TRACKED = ("Conv", "BatchNormalization", "Add", "AveragePool", "MatMul", "Gemm")


class Network(NamedTuple):
    """How to make it, the operators of interest that are left, an input's shape; if size varies."""

    make: Callable[[], nn.Module]
    left: dict[str, int]
    shape: tuple[int, ...] = IMAGE
    varies: bool = True


HEAD = {"Gemm": 1}
NETWORKS = {
    "shufflenet": Network(lambda: classifier(Shuffle(8), Shuffle(8)), {"Conv": 7} | HEAD),
    "ghost": Network(lambda: classifier(Sum(Ghost(8, 8), norm(8, 8))), {}),
    # Each BatchNormalization that is left stands between a Concat and a Relu.
    "densenet": Network(
        lambda: classifier(dense(8), dense(16), channels=24),
        {"Conv": 5, "BatchNormalization": 2} | HEAD,
    ),
    "preact": Network(
        lambda: classifier(
            residual(nn.BatchNorm2d(8), nn.ReLU(), norm(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))
        ),
        {"Conv": 3, "BatchNormalization": 1, "Add": 1} | HEAD,
    ),
    "inception": Network(lambda: classifier(inception(8, True), channels=16), {}),
    "inception-uncounted": Network(
        lambda: classifier(inception(8, False), channels=16),
        {"Conv": 5, "AveragePool": 1} | HEAD,  # the three first ones are one
    ),
    "resnext": Network(
        lambda: classifier(residual(layer(8, 8), layer(8, 8, 3, groups=4), norm(8, 8)), nn.ReLU()),
        {"Conv": 4, "Add": 1} | HEAD,
    ),
    "mobilenetv3": Network(
        lambda: classifier(inverted(8, nn.Hardswish, nn.Hardsigmoid)), {"Conv": 6, "Add": 1} | HEAD
    ),
    "efficientnet": Network(
        lambda: classifier(inverted(8, nn.SiLU, nn.Sigmoid)), {"Conv": 6, "Add": 1} | HEAD
    ),
    "convnext": Network(lambda: classifier(ConvNeXt(8)), {}),
    "unet": Network(UNet, {"Conv": 4}),
    "yolo": Network(Yolo, {}),
    "qarepvgg": Network(lambda: classifier(qarep(8)), {"Conv": 2} | HEAD),
    "unireplknet": Network(lambda: classifier(dilated(8), nn.ReLU()), {"Conv": 2} | HEAD),
    "dbb": Network(lambda: classifier(diverse(8)), {"Conv": 2} | HEAD),
    "dbb-border": Network(lambda: classifier(diverse_with_border(8)), {}, varies=False),
    "audio": Network(Audio, {"Conv": 3}, (2, 2, 64)),
    "video": Network(Video, {"Conv": 2}, (2, 2, 4, 12, 10)),
    "mlp": Network(perceptron, {"Gemm": 2}, (4, 12, 1), False),
    "attention": Network(Attention, {"MatMul": 8}, (2, 9, 16), False),
    "espcn": Network(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), rep(8), nn.PixelShuffle(2)),
        {"Conv": 2},
    ),
    "convmixer": Network(mixer, {}),
    "normed": Network(lambda: Normed(classifier()), {"Conv": 1} | HEAD),
    "shared": Network(Shared, {"Conv": 2, "BatchNormalization": 1, "Add": 1}),
}
