"""R-Drop's loss against its definition, and the two passes through a network."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.classifier import Classifier
from models.rdrop import r_drop_loss, two_passes
from models.repvgg import repvgg_block

# Sums of a few dozen float64 terms of about 1 differ by a few 1e-15.
FLOAT64_TOLERANCE = 1e-13


def probabilities(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def kl(p, q):
    return sum(p[k] * math.log(p[k] / q[k]) for k in range(len(p)))


def loss_from_its_definition(logits1, logits2, labels, alpha):
    total = 0.0
    for row1, row2, label in zip(logits1, logits2, labels, strict=True):
        p1, p2 = probabilities(row1), probabilities(row2)
        total += -math.log(p1[label]) - math.log(p2[label])
        total += alpha * (kl(p1, p2) + kl(p2, p1)) / 2
    return total / len(labels)


@pytest.fixture
def passes():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    return logits[0], logits[1], torch.tensor([0, 4, 2, 2, 1, 3, 0])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 5.0])
def test_loss_is_its_definition(passes, alpha):
    expected = loss_from_its_definition(*(values.numpy() for values in passes), alpha)
    assert r_drop_loss(*passes, alpha).item() == pytest.approx(expected, rel=FLOAT64_TOLERANCE)


def test_loss_does_not_tell_the_passes_apart(passes):
    logits1, logits2, labels = passes
    swapped = r_drop_loss(logits2, logits1, labels, 3.0)
    assert torch.equal(r_drop_loss(logits1, logits2, labels, 3.0), swapped)


def test_loss_without_divergence_is_the_sum_of_the_cross_entropies(passes):
    logits1, logits2, labels = passes
    expected = sum(nn.functional.cross_entropy(logits, labels) for logits in (logits1, logits2))
    torch.testing.assert_close(r_drop_loss(*passes, 0.0), expected, rtol=FLOAT64_TOLERANCE, atol=0)


def test_equal_passes_do_not_diverge(passes):
    logits, _, labels = passes
    shifted = logits + 1.0  # the same probabilities
    without, with_divergence = (r_drop_loss(logits, logits, labels, a) for a in (0.0, 5.0))
    assert torch.equal(without, with_divergence)
    without, with_divergence = (r_drop_loss(logits, shifted, labels, a) for a in (0.0, 5.0))
    torch.testing.assert_close(without, with_divergence, rtol=FLOAT64_TOLERANCE, atol=0)


def test_gradients_flow_through_both_passes(passes):
    logits1, logits2, labels = (
        values.requires_grad_(values.is_floating_point()) for values in passes
    )
    assert torch.autograd.gradcheck(lambda a, b: r_drop_loss(a, b, labels, 2.0), (logits1, logits2))
    first, second = torch.autograd.grad(
        r_drop_loss(logits1, logits2, labels, 2.0), (logits1, logits2)
    )
    assert first.abs().min() > 0
    assert second.abs().min() > 0


def test_large_logits_are_stable():
    logits1 = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    logits2 = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    loss = r_drop_loss(logits1, logits2, torch.tensor([0]), 1.0)
    # cross entropies 0 and 2e4, each KL 2e4
    assert loss.item() == 4e4
    loss.backward()
    assert logits1.grad.isfinite().all()
    assert logits2.grad.isfinite().all()


def small_network(dropout):
    return Classifier([repvgg_block(1, 8)], channels=8, num_classes=3, dropout=dropout).train()


def test_passes_drop_different_features():
    inputs = torch.rand(4, 1, 5, 5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits1, logits2 = two_passes(small_network(0.5), inputs)
    assert logits1.shape == logits2.shape == (4, 3)
    assert not torch.equal(logits1, logits2)


def test_passes_are_equal_without_dropout():
    logits1, logits2 = two_passes(small_network(0.0), torch.rand(4, 1, 5, 5))
    torch.testing.assert_close(logits1, logits2)


def test_statistics_move_once_for_both_passes():
    once, twice = small_network(0.5), small_network(0.5)
    twice.load_state_dict(once.state_dict())
    inputs = torch.rand(16, 1, 5, 5)
    once(inputs)
    two_passes(twice, inputs)
    for (name, buffer), other in zip(once.named_buffers(), twice.buffers(), strict=True):
        # An unbiased variance of 400 values, or of the same ones twice: 400 / 399 or 800 / 799.
        torch.testing.assert_close(buffer, other, rtol=2e-3, atol=1e-6, msg=name)


def test_dropout_adds_no_state():
    assert small_network(0.5).state_dict().keys() == small_network(0.0).state_dict().keys()


def test_no_dropout_is_no_module():
    assert not any(isinstance(module, nn.Dropout) for module in small_network(0.0).modules())
    assert any(isinstance(module, nn.Dropout) for module in small_network(0.5).modules())
