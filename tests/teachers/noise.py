"""Pictures and models for a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tests.adapters.families import build

if TYPE_CHECKING:
    from detkd.teachers.store import View

IMAGES, SIZE = 4, 64


class Noise:
    """Pictures of noise, one for each view."""

    counts = {"full": 2, "closed": 1}  # noqa: RUF012

    def __len__(self) -> int:
        return IMAGES

    def load(self, views: Sequence[View], batch: int) -> Iterator[torch.Tensor]:
        """Compose some views."""
        seeds = [hash((len(view.stage), view.view, view.image)) for view in views]
        pictures = [torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        yield from torch.stack(pictures).split(batch)

    def fingerprint(self) -> Mapping[str, Mapping[str, Any]]:
        """What they depend on."""
        return {"data": {"images": IMAGES}}


def opinionated(name: str) -> nn.Module:
    """A model with statistics of its activations, without which one from scratch says the same of everything."""
    model = build(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()(torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    return model
