"""Small modules to export, and a file of factories."""

import torch
from torch import nn

X = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(1))
EXPORTERS = ["script", "dynamo"]

FACTORIES = '''
"""Factories for tests of the command line."""
from dataclasses import dataclass

import torch
from torch import nn

import sibling


@dataclass
class Options:
    channels: int = 4


class Block(nn.Module):
    def __init__(self, channels=4, name="block"):
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding="same")
        self.norm = nn.BatchNorm2d(channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.drop = nn.Dropout(0.5)
        self.name = name

    def forward(self, image):
        return self.drop(self.norm(self.wide(image)) + self.point(image) + image)


def block(channels=4, **options):
    import sibling
    return Block(channels, **options)


class Nested:
    block = Block


ready = Block()
number = 3


def fails():
    raise ValueError("no weights\\nfor you")


def leaves():
    raise SystemExit(0)


def text():
    return "a module?"


class Stubborn(Block):
    def train(self, mode=True):
        return super().train(True)


class Noisy(Block):
    def forward(self, image):
        return torch.nn.functional.dropout(super().forward(image))
'''


class Block(nn.Module):
    """dropout(BN(conv3x3(x)) + conv1x1(x) + x)."""

    def __init__(self, channels: int = 4):
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.wide(image)) + self.point(image) + image)


class Named(nn.Module):
    """Two inputs, outputs in a mapping and a tuple in it."""

    def forward(self, ids, mask):
        return {"sum": ids.float() + mask, "parts": (ids * 2, mask), "ids": ids + 1}


class Switch(nn.Module):
    """A branch on the values that always goes one way: torch.export fails, tracing is right."""

    def forward(self, x):
        return torch.relu(x) if float((x * x).sum()) >= 0 else x


class SignSwitch(nn.Module):
    """A branch on the values: tracing keeps the one of the examples."""

    def forward(self, x):
        return torch.relu(x) + 1 if float(x.sum()) > 0 else x


class Flat(nn.Module):
    """Runs at one size only."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.head(x.flatten(1))


class Frozen(nn.Module):
    """The tracing exporter takes the height of the example for a constant."""

    def forward(self, x):
        return x + torch.ones(int(x.shape[2]), 1)


class Strided(nn.Module):
    """The tracing exporter writes the strides of the example into the model: wrong at others."""

    def forward(self, x):
        x = x.contiguous()
        n, c, h, w = x.shape
        return x.as_strided((n, c, h - 1, w - 1), x.stride())


class Neither(nn.Module):
    """An operator that no exporter knows."""

    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.transpose(-1, -2))
