"""Shallow heads that learn from the deepest one."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.losses import BYOT, byot

LOGITS = torch.tensor([[math.log(2.0), math.log(1.0), math.log(1.0)]])  # probabilities 1/2, 1/4, 1/4
DEEP = torch.tensor([[math.log(1.0), math.log(1.0), math.log(2.0)]])
EMBEDDINGS = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]])


def test_a_sample_by_hand() -> None:
    labels = torch.tensor([1])
    found = byot(LOGITS, EMBEDDINGS[0], DEEP, EMBEDDINGS[1], labels, alpha=0.25, temperature=1.0, hint=0.1)
    # -log(1/4); 1/4·log(1/2) + 1/4·log(1) + 1/2·log(2); The mean of 3² and 4².
    expected = 0.75 * math.log(4) + 0.25 * (-0.25 * math.log(2) + 0.5 * math.log(2)) + 0.1 * 25 / 2
    assert float(found) == pytest.approx(expected)


def test_the_temperature_softens_both_heads_and_keeps_the_size_of_the_gradient() -> None:
    labels = torch.tensor([1])
    found = byot(LOGITS, EMBEDDINGS[0], DEEP, EMBEDDINGS[0], labels, alpha=1.0, temperature=2.0)
    p, q = (DEEP / 2).softmax(1), (LOGITS / 2).softmax(1)
    assert float(found) == pytest.approx(4 * float((p * (p / q).log()).sum()), rel=1e-4)


def test_the_deepest_head_learns_nothing_from_the_shallow_one() -> None:
    head = BYOT(4, classes=3, embedding=6)
    feature = torch.rand(2, 4, 5, 5, requires_grad=True)
    logits, embedding = torch.randn(2, 3, requires_grad=True), torch.randn(2, 6, requires_grad=True)
    head(feature, logits, embedding, torch.tensor([0, 2])).backward()
    assert logits.grad is None
    assert embedding.grad is None
    assert feature.grad is not None
    assert feature.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_an_empty_batch_is_worth_nothing() -> None:
    empty = torch.zeros(0, 3, requires_grad=True)
    found = byot(empty, torch.zeros(0, 2), torch.zeros(0, 3), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    found.backward()
    assert float(found.detach()) == 0
