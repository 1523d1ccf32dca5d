"""The batches of a Lightning run."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from detkd.data.loading import training_loader
from detkd.data.sampling import AddressSampler, repeat_factors
from detkd.engines.lightning.held_out import HeldOut
from detkd.engines.views.lightning import PictureViews

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    from detkd.config import RunConfig
    from detkd.engines.lightning.task import TrainingTask
    from detkd.lightning_config import LoadingConfig, OptimConfig


def sections(config: RunConfig) -> tuple[OptimConfig, LoadingConfig]:
    """The sections that only this engine reads."""
    assert config.optim is not None, "the configuration of another engine"
    assert config.loading is not None
    return config.optim, config.loading


def workers(config: RunConfig) -> int:
    """Processes that compose pictures."""
    given = sections(config)[1].workers
    if given is not None:
        return given
    return 0 if config.train.device == "cpu" else min(8, os.cpu_count() or 1)


def replays(config: RunConfig) -> bool:
    """Whether a run goes through the views of a cache again and again."""
    return config.distill is not None and config.distill.views is not None


def salt(config: RunConfig) -> str:
    """What tells the pictures of a run from those of another; a cache's are the same in all."""
    return "" if replays(config) else str(config.train.seed)


def training_views(
    task: TrainingTask, config: RunConfig, dataset: Any, student: nn.Module | None = None
) -> PictureViews | None:
    """The augmented pictures of a run whose teacher is cached; None where no teacher is."""
    if config.distill is None or config.distill.views is None:
        return None
    pictures = task.pictures(config, dataset, student)
    # Sentences are shown as they are: they have one view.
    count = 1 if pictures.augmentation is None else min(config.distill.views, config.train.epochs)
    inputs = partial(task.whole_inputs, pictures)
    return PictureViews(pictures, config.augment or (), count, gather=task.gather, inputs=inputs, workers=workers(config))


def make_loader(
    task: TrainingTask, config: RunConfig, dataset: Any, student: nn.Module, rank: int, processes: int
) -> tuple[DataLoader[Any], HeldOut | None]:
    """One process's share of the batches, and what is set apart from them for a balance that looks ahead.

    Args:
        task: What is trained for.
        config: The run.
        dataset: Its data.
        student: Its student.
        rank: Of the process.
        processes: How many there are.
    """
    _, loading = sections(config)
    views = training_views(task, config, dataset, student)
    pictures = task.pictures(config, dataset, student) if views is None else views.pictures
    rare = loading.sampling == "repeat_factor"
    factors = task.repeats(dataset, pictures)
    factors = factors * repeat_factors(pictures.images, loading.threshold) if rare else factors
    batch, held_out = config.train.batch // processes, None
    if config.distill is not None and config.distill.balance == "meta":
        share, seed = config.distill.held_out, config.train.seed
        number = None if views is None else views.count
        held_out = HeldOut(task, pictures, share, batch=batch, seed=seed, views=number, rank=rank)
        factors = held_out.without(factors)
    sampler = AddressSampler(
        factors,
        config.train.batch,
        seed=config.train.seed,
        views=None if views is None else views.count,
        lengths=task.lengths(pictures),
        rank=rank,
        processes=processes,
    )
    return training_loader(cast("Dataset[Any]", pictures), sampler, batch, workers(config), task.gather), held_out
