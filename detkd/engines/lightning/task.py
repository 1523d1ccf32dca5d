"""What differs between the tasks that Lightning trains for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor, nn


class AddressedPictures(Protocol):
    """Training pictures that are addressed by image and view, and depend on nothing else, see :mod:`detkd.data.loading`.

    Attributes:
        images: What is known of each image: its ``picture_bytes()`` and ``label_bytes()``, and of detectors the ``classes``
            of its objects.
        augmentation: What is done to them, ``augmentation.square`` saying how they become squares; None where nothing is.
    """

    images: Any
    augmentation: Any

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, address: tuple[int, int]) -> Any:
        """A batch of one picture."""


class TrainingTask(Protocol):
    """A task.

    Attributes:
        watched: The metric that the best student has most of.
        title: What it is called on the terminal.
    """

    watched: str
    title: str

    def check(self, config: Any) -> None:
        """Refuse what cannot be built of a configuration.

        Raises:
            ConfigError: With one line for each fault.
        """

    def gather(self, samples: Sequence[Any]) -> Any:
        """Make a batch of batches of one picture.

        A batch has ``images``, RGB of 8 bits [B, 3, S, S], ``targets`` that the student is called with in training, and
        ``addresses``.
        """

    def pictures(self, config: Any, dataset: Any, student: nn.Module | None) -> AddressedPictures:
        """The training pictures: those of a cache are the same in all runs."""

    def repeats(self, dataset: Any, pictures: Any) -> npt.NDArray[np.float64]:
        """How often an epoch shows each picture: their sum is the number of training images in all runs of a data set."""

    def lengths(self, pictures: Any) -> npt.NDArray[np.int64] | None:
        """Length of each sample where a batch is filled up to its longest, [N]; None where all are of one size."""

    def labelled(self, pictures: Any) -> npt.NDArray[np.bool_]:
        """Which of the training pictures have labels, [N]."""

    def inputs(self, batch: Any) -> Tensor:
        """What the student is called with, one after another: RGB in [0, 1], [B, 3, S, S], or token ids, [B, 1, 1, L]."""

    def whole_inputs(self, pictures: Any, batch: Any) -> Tensor:
        """The same in one shape for all batches of the training pictures, as a cache of a teacher's outputs needs it."""

    def targets(self, batch: Any) -> Any:
        """The labels, as distillation takes them."""

    def judge(
        self, config: Any, dataset: Any, student: nn.Module, rank: int, processes: int
    ) -> Callable[[nn.Module], Mapping[str, float]]:
        """What gives the metrics of a model on the watched split, the same in every process."""

    def save(self, config: Any, model: nn.Module, path: Path) -> None:
        """Write a student, whole or not at all, and beside its tensors what :meth:`judge` and others need to know of it."""


class PictureTraining:
    """What the tasks on pictures have in common, where theirs is nothing else."""

    def repeats(self, dataset: Any, pictures: Any) -> npt.NDArray[np.float64]:
        """Once each."""
        del dataset
        return np.ones(len(pictures))

    def lengths(self, pictures: Any) -> npt.NDArray[np.int64] | None:
        """None: all pictures are of one size."""
        del pictures
        return None

    def labelled(self, pictures: Any) -> npt.NDArray[np.bool_]:
        """All of them: where nothing is labelled, there is nothing."""
        return np.ones(len(pictures), bool)

    def inputs(self, batch: Any) -> Tensor:
        """RGB in [0, 1], [B, 3, S, S]."""
        pictures: Tensor = batch.images.float() / 255
        return pictures

    def whole_inputs(self, pictures: Any, batch: Any) -> Tensor:
        """The same: all pictures are of one size."""
        del pictures
        return self.inputs(batch)
