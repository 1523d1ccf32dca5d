"""Hand-worked values of hidden states."""

from __future__ import annotations

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import hidden_state

STUDENT = torch.tensor([[[1.0, 5.0, 9.0], [2.0, 5.0, 9.0]]])[..., None]  # [B, D, L, 1]: two numbers of three tokens
TEACHER = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 1.0, 0.0]]])[..., None]


def test_padding_counts_nothing() -> None:
    tokens = torch.tensor([[True, True, False]])
    student = STUDENT.clone().requires_grad_()
    loss = hidden_state(student, TEACHER, tokens)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4 + 9 + 16) / (2 * 2))
    assert student.grad[..., 2, :].abs().max() == 0


def test_a_sentence_of_padding_alone_costs_nothing() -> None:
    assert hidden_state(STUDENT, TEACHER, torch.zeros(1, 3, dtype=torch.bool)).item() == 0


def test_a_mask_of_other_tokens_is_refused() -> None:
    with pytest.raises(ArgumentError, match="token_mask"):
        hidden_state(STUDENT, TEACHER, torch.ones(1, 4, dtype=torch.bool))
