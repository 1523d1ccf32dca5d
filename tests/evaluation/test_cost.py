"""What a model costs to run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor, nn

from detkd.evaluation.cost import measure_cost, median_times

TOKENS, WIDTH, STATE = 5, 8, 16


class Reader(nn.Module):
    """An LSTM over a sentence, read from both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(WIDTH, STATE, batch_first=True, bidirectional=True)
        self.taps = SimpleNamespace(example=lambda: torch.zeros(1, TOKENS, WIDTH))

    def forward(self, states: Tensor) -> Tensor:
        """[B, L, D] to [B, L, 2 H]."""
        return cast("Tensor", self.layer(states)[0])


def test_convolutions_by_hand() -> None:
    model = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    cost = measure_cost({"model": (model, 32)})["model"]
    assert (cost.parameters, cost.gflops * 1e9) == (108, 2 * 108 * 32 * 32)
    assert cost.cpu_ms > 0


def test_recurrent_layers_by_hand() -> None:
    cost = measure_cost({"model": (Reader(), 32)})["model"]
    assert round(cost.gflops * 1e9) == 2 * TOKENS * 2 * 4 * STATE * (WIDTH + STATE)


def test_each_model_is_measured_at_its_own_size() -> None:
    model = nn.Conv2d(3, 4, 1, bias=False)
    costs = measure_cost({"student": (model, 32), "teacher": (model, 64)})
    assert costs["teacher"].gflops == 4 * costs["student"].gflops


def test_modes_are_restored() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    model[1].eval()
    measure_cost({"model": (model, 32)})
    assert (model[0].training, model[1].training) == (True, False)


def test_calls_take_turns() -> None:
    order: list[str] = []
    median_times({name: lambda name=name: order.append(name) for name in "ab"})
    assert order[:4] == ["a", "b", "a", "b"]
