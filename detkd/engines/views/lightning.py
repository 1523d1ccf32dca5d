"""The training pictures of the Lightning engine, as a teacher's cache asks for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader

from detkd.data.augment import STREAMS
from detkd.data.loading import single_threaded
from detkd.teachers.store import View, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor
    from torch.utils.data import Dataset

    from detkd.engines.lightning.task import AddressedPictures

STAGE = "full"  # the only one: the augmentation is the same from beginning to end


class PictureViews:
    """The views of a run: the :class:`detkd.teachers.pictures.Pictures` of a cache.

    Args:
        pictures: The pictures, of no run in particular, which have the empty salt.
        steps: The augmentation's steps.
        count: Number of views of an image.
        gather: Makes a batch of batches of one picture.
        inputs: Makes of a batch what a model is called with, of one shape in all batches.
        workers: Processes that compose them; 0 composes them here.

    Attributes:
        count: Number of views of an image.
        counts: The same by the run's only stage.
    """

    def __init__(
        self,
        pictures: AddressedPictures,
        steps: Sequence[Mapping[str, Any]],
        count: int,
        *,
        gather: Callable[[Sequence[Any]], Any],
        inputs: Callable[[Any], Tensor],
        workers: int = 0,
    ) -> None:
        self.pictures = pictures
        self.count = count
        self.counts = {STAGE: count}
        self._steps, self._gather, self._inputs, self._workers = steps, gather, inputs, workers

    def __len__(self) -> int:
        return len(self.pictures)

    def load(self, views: Sequence[View], batch: int) -> Iterator[Tensor]:
        """Compose the pictures of some views, as the student sees them: [batch, 3, S, S] in [0, 1], or token ids.

        Args:
            views: The views.
            batch: Pictures at a time.
        """
        addresses = [
            [(view.image, view.view) for view in views[start : start + batch]] for start in range(0, len(views), batch)
        ]
        workers = min(self._workers, len(addresses) - 1)
        for found in DataLoader(
            cast("Dataset[Any]", self.pictures),
            batch_sampler=addresses,
            num_workers=workers,
            collate_fn=self._gather,
            worker_init_fn=single_threaded,
            generator=torch.Generator(),  # or the loader would draw from the run's
        ):
            yield self._inputs(found)

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """What the pictures depend on, apart from their address; labels too, since some transforms look at them."""
        if self.pictures.augmentation is None:  # sentences, which nothing is done to
            return {"data": self._data, "input": {"tokens": self.pictures.images.longest}}
        import cv2

        libraries = {name: version(name) for name in ("albumentations", "albucore", "numpy", "pillow")}
        return {
            "data": self._data,
            "transform": {"augment": list(self._steps), "streams": STREAMS, **libraries, "opencv": cv2.__version__},
            "input": self.pictures.augmentation.square,
        }

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Digests of all images and labels, taken once: each of several cached teachers asks for them."""
        images = self.pictures.images
        with ThreadPoolExecutor() as pool:
            files = list(pool.map(lambda image: digest(image.picture_bytes()), images))
        labels = [digest(image.label_bytes()) for image in images]
        return {
            "images": len(images),
            "pictures": digest("".join(files).encode()),
            "labels": digest("".join(labels).encode()),
        }
