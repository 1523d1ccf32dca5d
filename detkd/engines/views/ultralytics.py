"""Augmented pictures that come back exactly: ultralytics' training data, addressed by image and view.

ultralytics draws its augmentation from global generators, and mosaic partners from the images that a process happened to
load lately. Here both depend on the address alone, so a view is the same picture in every process, epoch and order.
"""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from detkd.data.augment import STREAMS, reseed
from detkd.errors import ConfigError
from detkd.seeds import seed_of
from detkd.teachers.store import View, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

FULL, CLOSED = "full", "closed"  # stages of a training run: before ultralytics' close_mosaic, and from there on
MIXING = ("mosaic", "copy_paste", "mixup", "cutmix")  # what close_mosaic shuts off
AUGMENTATION = (
    *MIXING,
    "copy_paste_mode",
    "degrees",
    "translate",
    "scale",
    "shear",
    "perspective",
    "hsv_h",
    "hsv_s",
    "hsv_v",
    "flipud",
    "fliplr",
    "bgr",
    "augmentations",
)
KEPT_IMAGES = 1000  # decoded images that a process keeps at most, as ultralytics does for its own mosaics


def check_replayable(args: Any) -> None:
    """Refuse arguments of ultralytics' trainer under which a view is not the same picture each time.

    Raises:
        ConfigError: With one line for each of them.
    """
    faults = [
        f"trainer.{name}: expected to be off with a cached teacher, but got {getattr(args, name)!r}: {reason}. Switch it "
        "off, or leave distill.teacher.cache out."
        for name, reason in (
            ("multi_scale", "batches are resized at random"),
            ("rect", "pictures have the shape of their batch"),
            ("time", "the number of epochs is not known beforehand"),
        )
        if getattr(args, name, None)
    ]
    if faults:
        raise ConfigError("\n".join(faults))


class Views(Dataset[Any]):
    """ultralytics' training data set whose items are addressed by (image, view) and say so under `views`.

    Everything else is the data set's own. It is the :class:`detkd.teachers.base.Pictures` of a cache.

    Args:
        dataset: A ``YOLODataset`` that augments.
        args: Arguments of ultralytics' trainer, all of them.
        count: Number of views of an image, ``distill.teacher.views``.

    Attributes:
        counts: Number of views of each stage of the run: `count`, or as many as the stage has epochs.
        stage: The stage whose transform is in place.
    """

    def __init__(self, dataset: Any, args: Any, count: int) -> None:
        self.dataset = dataset
        self.args = args
        self.count = count
        self.stage = FULL
        closed = min(args.close_mosaic, args.epochs) if _mixes(args) else 0
        epochs = {FULL: args.epochs - closed, CLOSED: closed}
        self.counts = {stage: min(count, number) for stage, number in epochs.items() if number}
        # Without mosaic's buffer every partner would be decoded anew.
        dataset.max_buffer_length = min(len(dataset), KEPT_IMAGES) + 1
        self._free_from_history()

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # asked for before there is one, while a copy is made
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, address: tuple[int, int]) -> dict[str, Any]:
        image, view = address
        with _seeded(f"{self.stage} {view} {image}") as seed:
            for transform in self._own_generators:
                reseed(transform, seed)
            return {**self.dataset[image], "views": View(self.stage, view, image)}

    def close_mosaic(self, hyp: Any) -> None:
        """Shut mosaic and its like off, as ultralytics does; if there was any, a stage with views of its own begins."""
        if _mixes(hyp):
            self.stage = CLOSED
        self.dataset.close_mosaic(hyp)
        self._free_from_history()

    def load(self, views: Sequence[View], batch: int) -> Iterator[Tensor]:
        """Compose the pictures of some views of one stage, as the student sees them: [batch, 3, H, W] in [0, 1].

        Args:
            views: The views.
            batch: Pictures at a time.
        """
        dataset = self._at(views[0].stage)
        addresses = [(view.image, view.view) for view in views]
        batches = [addresses[start : start + batch] for start in range(0, len(addresses), batch)]
        workers = min(self.args.workers, len(batches) - 1)
        own = torch.Generator()  # or the loader would draw from the run's
        for sample in DataLoader(
            dataset, batch_sampler=batches, num_workers=workers, collate_fn=dataset.collate_fn, generator=own
        ):
            yield sample["img"].float() / 255

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """What the pictures depend on, apart from their address.

        Labels are part of it: some transforms look at them, such as copy-paste.
        """
        return {
            "data": self._data,
            "transform": {name: getattr(self.args, name, None) for name in AUGMENTATION}
            | {"streams": STREAMS}
            | _versions(),
            "input": {"imgsz": self.args.imgsz},
        }

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Digests of all images and labels, taken once: each of several cached teachers asks for them."""
        with ThreadPoolExecutor() as pool:
            pictures = list(pool.map(lambda file: digest(Path(file).read_bytes()), self.dataset.im_files))
        labels = (label[key] for label in self.dataset.labels for key in ("cls", "bboxes", "segments"))
        return {
            "images": len(pictures),
            "pictures": digest("".join(pictures).encode()),
            "labels": digest("".join(_digest_arrays(label) for label in labels).encode()),
        }

    def _at(self, stage: str) -> Views:
        """These views with another stage's transform."""
        if stage == self.stage:
            return self
        assert stage == CLOSED, "a data set that was closed cannot be opened again"
        views = Views(copy.copy(self.dataset), self.args, self.count)
        views.close_mosaic(copy.copy(self.args))
        return views

    def _free_from_history(self) -> None:
        transforms = list(_walk(self.dataset.transforms))
        for transform in transforms:
            if hasattr(transform, "buffer_enabled"):
                transform.buffer_enabled = False  # mosaic partners out of the whole data set
        inner: list[Any] = [getattr(transform, "transform", None) for transform in transforms]
        self._own_generators = [transform for transform in inner if hasattr(transform, "set_random_seed")]


def load_views(arguments: Mapping[str, Any], stride: int, count: int) -> Views:
    """Build the views of a run as its trainer would, without a trainer.

    Args:
        arguments: Of ultralytics' trainer.
        stride: The student's largest.
        count: Number of views of an image.

    Raises:
        ConfigError: See :func:`check_replayable`.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils.checks import check_imgsz

    args = get_cfg(overrides=dict(arguments))
    check_replayable(args)
    step = max(stride, 32)
    args.imgsz = check_imgsz(args.imgsz, stride=step, floor=step, max_dim=1)
    args.workers = args.workers if torch.cuda.is_available() else 0  # as ultralytics' trainer does
    data = check_det_dataset(args.data)
    return Views(build_yolo_dataset(args, data["train"], args.batch, data, mode="train", stride=step), args, count)


class ViewSampler:
    """Batches of (image, view): in each pass over the data all images show their next view.

    It counts its own passes, in the process that trains: workers fetch ahead into epochs that have not begun.

    Args:
        batches: ultralytics' own batches of image indices.
        views: Number of views of each stage.
    """

    def __init__(self, batches: Iterable[list[int]], views: Mapping[str, int]) -> None:
        self._batches = batches
        self._views = views
        self.begin(next(iter(views)), 0)

    def begin(self, stage: str, passed: int) -> None:
        """Go on in a stage of which some passes are over."""
        self._count, self._pass = self._views.get(stage, 1), passed  # a stage may be over before its first epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        view = self._pass % self._count
        self._pass += 1
        for batch in self._batches:
            yield [(image, view) for image in batch]

    def __len__(self) -> int:
        return len(cast("Any", self._batches))


def replaying(base: Any, count: int) -> Any:
    """Subclass one of ultralytics' trainers so that it trains on views, which its batches name under `views`.

    Args:
        base: ``DetectionTrainer``, ``SegmentationTrainer``, or a subclass.
        count: Number of views of an image.

    Returns:
        The class; its arguments and everything else are `base`'s own.
    """

    class Replaying(base):  # type: ignore[misc]
        """A trainer of ultralytics on views."""

        def _setup_train(self) -> None:
            check_replayable(self.args)
            super()._setup_train()

        def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
            """Address the training data by view."""
            dataset = super().build_dataset(img_path, mode, batch)
            return Views(dataset, self.args, count) if mode == "train" else dataset

        def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
            """Let the training batches name views."""
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
            if mode == "train":
                endless = loader.batch_sampler
                endless.sampler = ViewSampler(endless.sampler, loader.dataset.counts)
            return loader

        def resume_training(self, ckpt: Any) -> None:
            """Go on with the view of the epoch that comes next."""
            super().resume_training(ckpt)
            self._begin_stage(self.start_epoch)

        def _close_dataloader_mosaic(self) -> None:
            super()._close_dataloader_mosaic()
            self._begin_stage(self.epoch)

        def _begin_stage(self, epoch: int) -> None:
            stage = self.train_loader.dataset.stage
            first = self.epochs - self.args.close_mosaic if stage == CLOSED else 0
            self.train_loader.batch_sampler.sampler.begin(stage, epoch - first)

    return Replaying


@contextmanager
def _seeded(address: str) -> Iterator[int]:
    """Seed every generator that transforms draw from, and give them back as they were."""
    seed = seed_of(address)
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # the processor's alone: torch.manual_seed would reach the GPU's, too
    try:
        yield seed
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _walk(transform: Any) -> Iterator[Any]:
    """A transform and all transforms inside of it."""
    yield transform
    for inner in (*getattr(transform, "transforms", ()), getattr(transform, "pre_transform", None)):
        if inner is not None:
            yield from _walk(inner)


def _mixes(args: Any) -> bool:
    return any(getattr(args, name) for name in MIXING)


def _digest_arrays(arrays: Any) -> str:
    """Digest of one array, or of a list of them."""
    if isinstance(arrays, list):
        return digest("".join(_digest_arrays(array) for array in arrays).encode())
    return digest(repr(arrays.shape).encode() + arrays.tobytes())


def _versions() -> dict[str, str | None]:
    """What composes the pictures."""
    import cv2
    import ultralytics

    try:
        own = version("albumentations")  # ultralytics adds its transforms wherever it is installed
    except PackageNotFoundError:
        own = None
    return {"ultralytics": ultralytics.__version__, "opencv": cv2.__version__, "albumentations": own}
