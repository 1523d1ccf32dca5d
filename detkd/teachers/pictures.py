"""Training pictures that can be composed again, as a cache asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from detkd.teachers.store import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor


class Pictures(Protocol):
    """The views of a training run."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of views of each stage of the run."""

    def __len__(self) -> int:
        """Number of images."""

    def load(self, views: Sequence[View], batch: int) -> Iterator[Tensor]:
        """Compose the pictures of some views of one stage, as the student sees them, [batch, 3, H, W] at a time."""

    def fingerprint(self) -> Mapping[str, Mapping[str, Any]]:
        """What the pictures depend on: sections of keys and values."""


def spread(pictures: Pictures, stage: str, count: int) -> list[View]:
    """Some views of a stage, over all its images and views evenly."""
    images = len(pictures)
    total = images * pictures.counts[stage]
    places = range(total // (2 * count), total, max(1, total // count))
    return [View(stage, *divmod(place, images)) for place in places][:count]
