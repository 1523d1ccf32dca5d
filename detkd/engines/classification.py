"""Classification: its data, and how classifiers are judged at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from detkd.adapters.families import make_any_adapter
from detkd.data.class_batches import batches
from detkd.data.class_folders import PictureDataset
from detkd.data.text import TextDataset
from detkd.engines.attention import features_of
from detkd.errors import ConfigError, DataError
from detkd.evaluation.classification import (
    accuracy_interval,
    agreement,
    class_accuracy,
    classification_metrics,
    predict_logits,
    reliability,
)
from detkd.evaluation.similarity import cka_table
from detkd.files import write_text
from detkd.matching import match_classes
from detkd.models.classifier_files import read_tokenizer
from detkd.report.attention import draw_attention
from detkd.report.classification import attention_panels, reliability_plot, similarity_plot
from detkd.report.curves import write_reliability
from detkd.report.gallery import Attention, Gallery, Shown, write_gallery
from detkd.report.watched import WATCHED_METRICS
from detkd.teachers.live import scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from detkd.config import ClassificationConfig
    from detkd.data.class_folders import ClassifiedPictures
    from detkd.data.text import Sentences
    from detkd.engines.tasks import Judged

METRICS: tuple[str, ...] = ("accuracy", "NLL", "ECE")
PICTURES = "reliability.png"
WATCHED, _NAME = WATCHED_METRICS["classify"]
TITLE = f"val {_NAME}"  # what that is called on the terminal
ALIKE = 512  # samples that layers are compared on
BATCH = 256  # samples, where no run says it
SHOWN = 6  # pictures whose attention is drawn


def load_data(config: ClassificationConfig, splits: tuple[str, ...] | None = None) -> PictureDataset | TextDataset:
    """Read the data set of a run, and refuse what is missing or broken in it.

    Raises:
        DetkdError: If anything is wrong.
    """
    how = config.classify
    dataset: PictureDataset | TextDataset
    if config.family == "text":
        tokenizer = None if how.tokenizer is None else read_tokenizer(how.tokenizer)
        dataset = TextDataset.load(
            config.data, config.train.imgsz, subset=how.subset, vocabulary=how.vocabulary, tokenizer=tokenizer
        )
    else:
        dataset = PictureDataset.load(config.data, config.train.imgsz, subset=how.subset, held_out=how.held_out)
    missing = [split for split in splits or config.evaluate if split not in dataset.splits]
    if missing:
        raise ConfigError(f"evaluate: expected splits out of {list(dataset.splits)}, but got {missing}.")
    return dataset


def evaluate(
    models: Mapping[str, Judged], dataset: PictureDataset | TextDataset, config: ClassificationConfig, folder: Path
) -> dict[str, dict[str, Any]]:
    """Accuracy, calibration and agreement with the first teacher of each model on every wanted split.

    Of the last split the reliability of all models, and with a teacher how alike its layers and the student's are, as
    pictures; a data set of sentences leaves its tokenizer in the folder.

    A teacher of other classes is judged by nothing: its metrics are NaN.
    """
    report: dict[str, dict[str, Any]] = {role: {} for role in models}
    curves, per_class, similarity = {}, {}, None
    for split in config.evaluate:
        part = dataset.parts[split]
        labels = torch.from_numpy(part.labels)
        found = {
            role: _in_words_of(
                judged.model,
                judged.classes,
                dataset.names,
                logits_of(judged.model, part, config.train.batch, scale=judged.imgsz / config.train.imgsz),
            )
            for role, judged in models.items()
        }
        first = next((found[role] for role in models if role != "student"), None)
        for role, logits in found.items():
            report[role][split] = _metrics(logits, labels)
            if first is not None and logits is not None and role == "student":
                report[role][split]["agreement"] = agreement(logits, first)
        known = {role: logits for role, logits in found.items() if logits is not None}
        curves = {role: reliability(logits, labels) for role, logits in known.items()}
        per_class = {role: class_accuracy(logits, labels, dataset.names) for role, logits in known.items()}
    reliability_plot(curves, folder / PICTURES)
    roles = [role for role in models if role != "student"]
    if roles:
        similarity = _compare_layers(models["student"], models[roles[0]], dataset.parts[config.evaluate[-1]], folder)
    write_reliability(folder, config.evaluate[-1], curves, per_class, similarity)
    if dataset.tokenizer is not None:
        write_text(folder / "tokenizer.json", dataset.tokenizer)
    return report


def _metrics(logits: Tensor | None, labels: Tensor) -> dict[str, Any]:
    if logits is None:
        return dict.fromkeys(METRICS, float("nan"))
    right = int((logits.argmax(1) == labels).sum())
    interval = accuracy_interval(right, len(labels))
    return {**classification_metrics(logits, labels), "intervals": {"accuracy": interval}}


def logits_of(
    model: nn.Module,
    samples: ClassifiedPictures | Sentences,
    count: int,
    places: Sequence[int] | None = None,
    *,
    scale: float = 1.0,
) -> Tensor:
    """Logits of samples, [N, C].

    Args:
        model: The classifier.
        samples: Pictures or sentences.
        count: Samples at a time.
        places: Which of them; None takes all.
        scale: Side of the model's pictures as a multiple of theirs.
    """
    places = range(len(samples)) if places is None else places
    order = samples.by_length(places)
    inputs = (scaled(batch, scale) for batch in batches(samples, count, [places[turn] for turn in order]))
    found = predict_logits(model, inputs)
    return torch.empty_like(found).index_copy_(0, torch.from_numpy(order), found)


def evaluate_classifier(model: nn.Module, dataset: PictureDataset | TextDataset, split: str) -> dict[str, Any]:
    """Accuracy with its interval, NLL, ECE and the accuracy of each class of a classifier on a split.

    Args:
        model: The classifier.
        dataset: The data, in pictures of its size, or read by its tokenizer.
        split: One of the data set's.

    Raises:
        DataError: If the model lacks a class of the data set.
    """
    part = dataset.parts[split]
    logits = _in_words_of(model, {}, dataset.names, logits_of(model, part, BATCH))
    if logits is None:
        names = list(make_any_adapter(model).class_names)
        raise DataError(f"Expected a classifier of the data set's {list(dataset.names)}, but it knows {names}.")
    labels = torch.from_numpy(part.labels)
    per_class = class_accuracy(logits, labels, dataset.names)
    return {**_metrics(logits, labels), "per_class": {name: {"accuracy": value} for name, value in per_class.items()}}


def _in_words_of(model: nn.Module, classes: Mapping[str, str], names: Sequence[str], logits: Tensor) -> Tensor | None:
    """A model's logits in the order of the data set's classes; None where it lacks any of them."""
    found = match_classes(names, make_any_adapter(model).class_names, classes)
    if found is None or found[0] is not None:
        return None
    return logits if found[1] is None else logits[:, found[1]]


def _compare_layers(
    student: Judged, teacher: Judged, part: ClassifiedPictures | Sentences, folder: Path
) -> list[list[float]]:
    """Draw how alike the layers of two models see the same samples, and of pictures where each of them looks.

    Returns:
        CKA, [layers of the student, layers of the teacher].
    """
    chosen = torch.linspace(0, len(part) - 1, min(ALIKE, len(part))).long().tolist()
    inputs = next(batches(part, len(chosen), chosen))
    features = {
        role: features_of(judged.model, scaled(inputs, judged.imgsz / student.imgsz))
        for role, judged in (("teacher", teacher), ("student", student))
    }
    table = cka_table(features["student"], features["teacher"])
    similarity_plot(table, folder / "similarity.png")
    if inputs.shape[1] == 3:
        shown = torch.linspace(0, len(inputs) - 1, min(SHOWN, len(inputs))).long()
        maps = {role: [feature[shown].square().mean(1) for feature in found] for role, found in features.items()}
        attention_panels(inputs[shown], maps, folder / "attention.png")
        write_gallery(_attention_gallery(inputs[shown], maps), folder)
    return table.tolist()


def _attention_gallery(images: Tensor, maps: Mapping[str, list[Tensor]]) -> Gallery:
    """The pictures [N, 3, H, W] and where each model looks, on levels of one resolution."""
    sides = {role: [level.shape[1:] for level in levels] for role, levels in maps.items()}
    common = [side for side in sides["student"] if side in sides["teacher"]]
    shown = []
    for number, picture in enumerate(images):
        pixels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
        attention = tuple(
            Attention(
                f"{height} × {width} positions",
                {role: draw_attention(pixels, maps[role][sides[role].index(side)][number].numpy()) for role in maps},
            )
            for side in common
            for height, width in (side,)
        )
        shown.append(Shown(f"picture {number + 1}", {}, attention=attention))
    return Gallery(tuple(shown))
