from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from detkd.engines.lightning.optimizers import learning_rate_factor, make_optimizer, make_schedule
from detkd.lightning_config import OptimConfig
from detkd.losses import FGD


def optim(**given: Any) -> OptimConfig:
    return OptimConfig.model_validate(given)


@pytest.mark.parametrize(
    ("schedule", "epoch", "factor"),
    [
        ("constant", 0.5, 0.25),  # a quarter of the warm-up
        ("constant", 5, 1),
        ("cosine", 6, 0.505),  # halfway from 1 to 0.01
        ("cosine", 12, 0.01),
        ("cosine", 2, 0.01 + 0.99 * (1 + 3**0.5 / 2) / 2),  # a sixth of the run: cos(30°)
        ("step", 7, 1),
        ("step", 9, 0.1),
        ("step", 11, 0.01),
    ],
)
def test_schedules_are_what_they_say(schedule: str, epoch: float, factor: float) -> None:
    assert learning_rate_factor(epoch, 12, optim(schedule=schedule, warmup_epochs=2)) == pytest.approx(factor)


def test_the_first_step_moves_and_the_last_one_is_the_smallest() -> None:
    config = optim(lr=1.0, warmup_epochs=1)
    optimizer = make_optimizer([nn.Linear(2, 2)], config)
    schedule = make_schedule(optimizer, config, steps=20, epochs=5)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.25, rel=0.01)
    assert max(rates) == rates[3]
    assert rates[-1] == min(rates) == pytest.approx(0.01)


def test_norms_and_biases_are_not_decayed_and_what_is_frozen_is_left_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    aligner = nn.Conv2d(4, 6, 1)
    for name, kind in (("adamw", AdamW), ("sgd", SGD)):
        optimizer = make_optimizer([model, aligner], optim(name=name, weight_decay=0.5))
        assert type(optimizer) is kind
        decayed, plain = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0]
        assert decayed == {id(model[0].weight), id(aligner.weight)}
        assert plain == {id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[2].bias, aligner.bias)}
    assert torch.is_tensor(model[2].weight)


def test_norms_over_maps_are_norms() -> None:
    """The layer norm of FGD's relations has weights of three dimensions, two of them 1."""
    loss = FGD(4)
    decayed, plain = (group["params"] for group in make_optimizer([loss], optim()).param_groups)
    norms = [parameter for name, parameter in loss.named_parameters() if "transform.1." in name]
    assert len(norms) == 4
    assert {id(parameter) for parameter in norms} <= {id(parameter) for parameter in plain}
    assert all(parameter.ndim == 4 for parameter in decayed)
