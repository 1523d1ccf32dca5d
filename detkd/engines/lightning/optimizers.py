"""Optimizer and learning-rate schedule of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from detkd.engines.lightning.sharding import are_mixed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detkd.lightning_config import OptimConfig

NORMS = (nn.LayerNorm, nn.GroupNorm, _BatchNorm)  # whose weights may have dimensions of 1 beside
COSINE_END = 0.01  # of the learning rate
STEPS = (2 / 3, 8 / 9)  # of the run, as in Detectron's schedules


def make_optimizer(modules: Iterable[nn.Module], config: OptimConfig) -> Optimizer:
    """An optimizer over all parameters that train; norms and biases are not decayed.

    Args:
        modules: The student, and what else learns with it.
        config: Its settings.
    """
    owners = [owner for module in modules for owner in module.modules()]
    norms = {own for owner in owners if isinstance(owner, NORMS) for own in owner.parameters(recurse=False)}
    every = dict.fromkeys(own for owner in owners for own in owner.parameters(recurse=False))
    parameters = [parameter for parameter in every if parameter.requires_grad]
    plain = {parameter for parameter in parameters if parameter.ndim <= 1 or parameter in norms}
    groups = [
        {"params": [parameter for parameter in parameters if parameter not in plain], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter in plain], "weight_decay": 0.0},
    ]
    foreach = False if are_mixed(parameters) else None  # None takes many at once where that is faster
    if config.name == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, foreach=foreach)
    return AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), foreach=foreach)


def make_schedule(optimizer: Optimizer, config: OptimConfig, steps: int, epochs: int) -> LambdaLR:
    """The learning rate at every one of a run's steps."""
    per_epoch = steps / epochs
    return LambdaLR(optimizer, lambda step: learning_rate_factor((step + 1) / per_epoch, epochs, config))


def learning_rate_factor(epoch: float, epochs: float, config: OptimConfig) -> float:
    """The learning rate as a multiple of the configured one.

    Args:
        epoch: Epochs that have passed at the end of the step.
        epochs: Length of the run.
        config: Warm-up and schedule.

    Source:
        Loshchilov and Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017 (cosine).
    """
    warmup = min(1.0, epoch / config.warmup_epochs) if config.warmup_epochs else 1.0
    share = min(1.0, epoch / epochs)
    if config.schedule == "cosine":
        return warmup * (COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * share)) / 2)
    if config.schedule == "step":
        return float(warmup * 0.1 ** sum(share > step for step in STEPS))
    return warmup
