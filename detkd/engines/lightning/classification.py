"""Classification, as Lightning trains it: labelled pictures or sentences in, accuracy out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from detkd.adapters.classifier import PADDING
from detkd.data.augment import make_transforms
from detkd.data.class_batches import ClassBatch, MovedPictures, TokenizedSentences, collate
from detkd.engines.classification import TITLE, WATCHED, logits_of
from detkd.engines.lightning.loading import salt, sections
from detkd.engines.lightning.sharing import gather, share_statistics
from detkd.engines.lightning.task import PictureTraining
from detkd.errors import ConfigError
from detkd.evaluation.classification import classification_metrics
from detkd.models.classifier_files import save_model
from detkd.types import ClassTargets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from detkd.config import ClassificationConfig
    from detkd.data.class_folders import PictureDataset
    from detkd.data.text import TextDataset
    from detkd.engines.lightning.task import AddressedPictures


class ClassificationTraining(PictureTraining):
    """The :class:`detkd.engines.lightning.task.TrainingTask` of classifiers of pictures, and base of that of sentences."""

    watched = WATCHED
    title = TITLE

    def check(self, config: ClassificationConfig) -> None:
        """Refuse what albumentations would refuse, and what only detectors have."""
        if sections(config)[1].sampling != "plain":
            raise ConfigError("loading.sampling: expected plain for a classifier.")
        if config.augment:
            make_transforms(config.augment)

    def gather(self, samples: Sequence[ClassBatch]) -> ClassBatch:
        """Make one batch of batches."""
        return collate(samples)

    def pictures(
        self, config: ClassificationConfig, dataset: PictureDataset, student: nn.Module | None
    ) -> AddressedPictures:
        """The training pictures."""
        del student
        how = config.classify
        return MovedPictures(
            dataset.parts["train"], shift=how.shift, flip=how.flip, steps=config.augment or (), salt=salt(config)
        )

    def targets(self, batch: ClassBatch) -> ClassTargets:
        """The labels, as distillation takes them."""
        return ClassTargets(batch.targets)

    def judge(
        self,
        config: ClassificationConfig,
        dataset: PictureDataset | TextDataset,
        student: nn.Module,
        rank: int,
        processes: int,
    ) -> Callable[[nn.Module], Mapping[str, float]]:
        """Accuracy and calibration of a model on the validation split."""
        del student
        part = dataset.parts[dataset.watched]
        labels = torch.from_numpy(part.labels)

        def judge(model: nn.Module) -> dict[str, float]:
            share_statistics(model, processes)
            places = range(rank, len(part), processes)
            found = logits_of(model, part, config.train.batch, places) if places else torch.empty(0)
            shares = gather(found, processes)
            logits = torch.empty(len(part), shares[0].shape[1])
            for turn, share in enumerate(shares):
                if len(share):  # a process beyond the last sample has none
                    logits[turn::processes] = share
            return {f"metrics/{name}": value for name, value in classification_metrics(logits, labels).items()}

        return judge

    def save(self, config: ClassificationConfig, model: nn.Module, path: Path) -> None:
        """Write a model's tensors, with what it was built as and, of sentences, its tokenizer."""
        del config
        save_model(model, path)


class TextTraining(ClassificationTraining):
    """The same for classifiers of sentences."""

    def check(self, config: ClassificationConfig) -> None:
        """Refuse what only pictures have."""
        super().check(config)
        if config.augment:
            raise ConfigError("augment: expected none for sentences; remove it.")

    def pictures(self, config: ClassificationConfig, dataset: Any, student: nn.Module | None) -> AddressedPictures:
        """The training sentences."""
        del config, student
        return TokenizedSentences(dataset.parts["train"])

    def lengths(self, pictures: TokenizedSentences) -> npt.NDArray[np.int64]:
        """Tokens of each sentence, [N]."""
        return pictures.images.lengths

    def inputs(self, batch: ClassBatch) -> Tensor:
        """Token ids, [B, 1, 1, L]."""
        return batch.images

    def whole_inputs(self, pictures: TokenizedSentences, batch: ClassBatch) -> Tensor:
        """Token ids filled up to the longest of all sentences."""
        return F.pad(batch.images, (0, pictures.images.longest - batch.images.shape[-1]), value=PADDING)
