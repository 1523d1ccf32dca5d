"""A teacher whose outputs come from a cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from detkd.errors import CacheError
from detkd.teachers.packing import Frame, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from detkd.teachers.packing import Kept
    from detkd.teachers.store import Store, View
    from detkd.types import DetectorOutputs

# A cached value may differ from a live one by this share of their spread: another device rounds otherwise, and half
# precision does (by 2^-11 of the value); a picture of something else differs by about all of it.
SHARE = 0.05
ROUNDING = 2.0**-10


class CachedTeacher:
    """Answers for views out of a cache; the model itself runs only where no view is named, and for the check.

    Args:
        live: The teacher that the cache was made from.
        store: The cache.
        kept: What the cache keeps of each picture.
    """

    def __init__(self, live: Any, store: Store, kept: Kept) -> None:
        self.adapter, self.scale, self.classes = live.adapter, live.scale, live.classes
        self._live = live
        self._store = store
        self._kept = kept
        self._frame: Frame | None = None

    def attach(self) -> None:
        """Make ready to run."""
        self._live.attach()

    def detach(self) -> None:
        """Remove what `attach` installed."""
        self._live.detach()

    @torch.no_grad()
    def run(self, images: Tensor, views: Sequence[View] | None = None) -> DetectorOutputs:
        """Look the views up; pictures that are no views, such as those of a trial, go through the model."""
        if views is None:
            return self._live_outputs(images)
        if self._frame is None:
            self._frame = Frame.of(self._live_outputs(images[:1]))
        tensors = self._store.read(views)
        return unpack({name: tensor.to(images.device, non_blocking=True) for name, tensor in tensors.items()}, self._frame)

    def check(self, images: Tensor, views: Sequence[View]) -> None:
        """Compare the cache with the model on some pictures.

        Args:
            images: The pictures, [B, 3, H, W].
            views: Which ones they are.

        Raises:
            CacheError: If what is cached of one of them is not what the model says.
        """
        cached = {name: tensor.to(images.device) for name, tensor in self._store.read(views).items()}
        live = pack(self._live_outputs(images), self._kept, like=cached)
        for name, expected in live.items():
            if not expected.is_floating_point():
                continue
            for view, one, other in zip(views, expected.float(), cached[name].float(), strict=True):
                error = (one - other).square().mean().sqrt()
                allowed = SHARE * one.std() + ROUNDING * one.abs().max()
                if not error <= allowed:  # also where either is NaN
                    raise CacheError(
                        f"Expected the teacher cache at {self._store.folder} to hold what the teacher says, but `{name}` "
                        f"of image {view.image}, view {view.view} of stage {view.stage}, differs by {error:.3g} where "
                        f"{allowed:.3g} is rounding. Make it anew with tools/cache_teacher.py in another folder."
                    )

    def _live_outputs(self, images: Tensor) -> DetectorOutputs:
        outputs: DetectorOutputs = self._live.run(images, None)
        return outputs


def digest_model(model: nn.Module) -> str:
    """A checksum of a model's architecture and weights, the same on every device."""
    checksum = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
