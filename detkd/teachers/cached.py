"""A teacher whose outputs come from a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import CacheError
from detkd.teachers.packing_classes import cut_to
from detkd.teachers.pictures import spread
from detkd.teachers.store import Store
from detkd.types import ClassifierOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from detkd.teachers.source import Source
    from detkd.teachers.store import View
    from detkd.types import Outputs

SAMPLE = 4  # views of each stage that are compared with the live teacher
# A cached value may differ from a live one by this share of their spread: another device rounds otherwise, and half
# precision does (by 2^-11 of the value); a picture of something else differs by about all of it.
SHARE = 0.05
ROUNDING = 2.0**-10


class CachedTeacher:
    """Answers for views out of a cache; the model itself runs only where no view is named, and for a check at the start.

    Args:
        source: What the cache was made from.
        folder: The cache.

    Raises:
        CacheError: If the cache is stale, incomplete, damaged, or does not hold what the teacher says; with the reason.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        live = source.live
        self.adapter, self.scale, self.classes, self.precision = live.adapter, live.scale, live.classes, live.precision
        self._live = live
        self._frame = source.frame
        self._store = Store(folder, source.fingerprint(), list(source.fields), source.pictures.counts)
        for stage in source.pictures.counts:
            self._check(source, spread(source.pictures, stage, SAMPLE))

    def attach(self) -> None:
        """Make ready to run."""
        self._live.attach()

    def detach(self) -> None:
        """Remove what `attach` installed."""
        self._live.detach()

    @torch.no_grad()
    def run(self, images: Tensor, views: Sequence[View] | None = None) -> Outputs:
        """Look the views up; pictures that are no views, such as those of a trial, go through the model."""
        if views is None:
            return self._live.run(images)
        self._frame = self._frame.to(images.device)
        outputs: Outputs = self._frame.unpack(self._read(views, images.device))
        # A batch of sentences, [B, 1, 1, L], is filled up to the longest of its own.
        return (
            cut_to(images.shape[-1], outputs)
            if isinstance(outputs, ClassifierOutputs) and images.shape[1] == 1
            else outputs
        )

    def _read(self, views: Sequence[View], device: torch.device) -> dict[str, Tensor]:
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self._store.read(views).items()}

    def _check(self, source: Source, views: Sequence[View]) -> None:
        outputs = next(source.outputs(views, len(views)))
        cached = self._read(views, outputs.features[0].device)
        for name, tensor in source.pack(outputs, like=cached).items():
            for view, one, other in zip(views, tensor.float(), cached[name].float(), strict=True):
                error = (one - other).square().mean().sqrt()
                allowed = SHARE * one.std(correction=0) + ROUNDING * one.abs().max()
                if not error <= allowed:  # also where either is NaN
                    raise CacheError(
                        f"Expected the teacher cache at {self._store.folder} to hold what the teacher says, but `{name}` "
                        f"of image {view.image}, view {view.view} of stage {view.stage}, differs by {error:.3g} where "
                        f"{allowed:.3g} is rounding. Make it anew with detkd cache-teacher in another folder."
                    )
