"""Hand-worked values of attention."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import attention_map

STUDENT = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]])
TEACHER = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
BOTH = torch.tensor([[True, True]])


def test_the_squared_difference_is_the_mean_over_pairs_of_tokens() -> None:
    assert attention_map(STUDENT, TEACHER, BOTH).item() == pytest.approx((2 * 0.25 + 2 * 0.0625) / 4)


def test_the_divergence_is_the_mean_over_attending_tokens() -> None:
    second = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert attention_map(STUDENT, TEACHER, BOTH, distance="kl").item() == pytest.approx((math.log(2) + second) / 2)


def test_padding_counts_nothing() -> None:
    longer = [torch.nn.functional.pad(x, (0, 1, 0, 1), value=0.3) for x in (STUDENT, TEACHER * 0.9)]
    longer[1][..., :2, :2] = TEACHER
    tokens = torch.tensor([[True, True, False]])
    torch.testing.assert_close(attention_map(*longer, tokens), attention_map(STUDENT, TEACHER, BOTH))


def test_models_of_other_numbers_of_heads_meet_in_the_mean_of_them() -> None:
    teacher = torch.cat((TEACHER, torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])), 1)
    mean = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]])
    torch.testing.assert_close(attention_map(STUDENT, teacher, BOTH), attention_map(STUDENT, mean, BOTH))
    assert attention_map(STUDENT, teacher, BOTH).item() == 0


def test_a_probability_of_nothing_stays_finite() -> None:
    student = TEACHER.clone().requires_grad_()
    loss = attention_map(student, STUDENT, BOTH, distance="kl")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_other_sentences_are_refused() -> None:
    with pytest.raises(ArgumentError, match="teacher_attention"):
        attention_map(STUDENT, TEACHER[..., :1], BOTH)
    with pytest.raises(ArgumentError, match="token_mask"):
        attention_map(STUDENT, TEACHER, BOTH[:, :1])
