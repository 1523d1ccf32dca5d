"""Construction of classifiers from a configuration, and checkpoints that say what they are of."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from detkd.errors import ConfigError, WeightsError, one_line
from detkd.models import bert_files, image_classifiers, text_classifiers
from detkd.models.checkpoints import (
    CHECKPOINT,
    given_checkpoint,
    load_tensors,
    plain_tensors,
    read_header,
    write_checkpoint,
)
from detkd.models.classifier import Classifier, ClassifierArchitecture
from detkd.weights import METADATA, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from detkd.model_config import ModelConfig

# In the header of a checkpoint of sentences, as JSON: what makes its tokens, and the sizes of a BERT from a folder.
TOKENIZER, BERT = "detkd.tokenizer", "detkd.bert"


@dataclass(frozen=True)
class Builder:
    """What builds the classifiers of a name.

    Attributes:
        build: Builds one from scratch, for a tokenizer.
        text: Whether it classifies sentences; those have a depth and a vocabulary.
    """

    build: Callable[[ClassifierArchitecture, str | None], Classifier]
    text: bool = False


BUILDERS: dict[str, Builder] = {
    "resnet18": Builder(lambda architecture, _: image_classifiers.resnet18(architecture)),
    "cnn": Builder(lambda architecture, _: image_classifiers.cnn(architecture)),
    "mobilenet_v3_small": Builder(lambda architecture, _: image_classifiers.mobilenet_v3_small(architecture)),
    "transformer": Builder(text_classifiers.TransformerClassifier, text=True),
    "lstm": Builder(text_classifiers.LSTMClassifier, text=True),
    "bert": Builder(text_classifiers.BertClassifier, text=True),
}


def build_model(
    spec: ModelConfig, class_names: Sequence[str], *, role: str, imgsz: int, tokenizer: str | None = None
) -> tuple[nn.Module, str]:
    """Build a classifier for a data set's classes and fill it with weights; nothing is ever downloaded.

    Args:
        spec: Name and, or, weights. A checkpoint of :func:`save_model` alone brings its own architecture and classes; a
            folder of transformers beside ``bert`` its own BERT; a state dict beside a name fills what fits.
        class_names: Classes of the data set.
        role: ``student`` or ``teacher``, for messages.
        imgsz: Side of the square input in pixels; of sentences the most tokens.
        tokenizer: What makes tokens of the data set's sentences, as JSON.

    Returns:
        The model in float32, and a sentence on where its weights came from.

    Raises:
        ConfigError: If neither name nor weights are given, the name is unknown, or has no such setting.
        WeightsError: If the weights are missing, unreadable, fit nothing, or were trained on other tokens.
    """
    path = given_checkpoint(spec, role)
    if path is not None:
        model = load_model(path, imgsz)
        _check_tokenizer(model.tokenizer, tokenizer, role, path)
        _check_length(model, imgsz, role, path)
        return model, f"all tensors from {path}"
    architecture = _architecture(spec, class_names, role, imgsz, tokenizer)
    if spec.weights is not None and spec.weights.is_dir():
        return _pretrained(spec.weights, architecture, role, tokenizer)
    model = BUILDERS[architecture.name].build(architecture, tokenizer)
    if spec.weights is None:
        return model, "from scratch"
    return model, f"{fill(model, plain_tensors(spec.weights), spec.weights)} ({spec.weights})"


def save_model(model: nn.Module, path: Path) -> None:
    """Write a classifier as safetensors: its tensors alone, and in the header what it was built as, and its tokenizer.

    Raises:
        WeightsError: If the model was built elsewhere.
        ConfigError: If the file cannot be written.
    """
    if not isinstance(model, Classifier):
        raise WeightsError(
            f"Expected a model of detkd.models.classifier_files.build_model, but got {type(model).__name__}. Save its "
            "state dict with torch.save."
        )
    header = {METADATA: model.architecture.to_json()}
    if model.tokenizer is not None:
        header[TOKENIZER] = model.tokenizer
    if isinstance(model, text_classifiers.BertClassifier) and model.pretrained:
        header[BERT] = bert_files.config_to_json(model.bert.config)
    write_checkpoint(model, path, header)


def load_model(path: Path, imgsz: int | None = None) -> Classifier:
    """Build the classifier of a checkpoint of :func:`save_model`.

    Args:
        path: The checkpoint.
        imgsz: Side of its input in pixels; None for the one that it was trained at. Sentences keep their own length.

    Raises:
        WeightsError: If the file is missing, unreadable, or none of these.
    """
    architecture, header = _read_header(path)
    tokenizer = header.get(TOKENIZER)
    if imgsz is not None and not BUILDERS[architecture.name].text:
        architecture = replace(architecture, imgsz=imgsz)
    model: Classifier
    if architecture.name == "bert" and BERT in header:
        config = bert_files.config_from_json(header[BERT], len(architecture.class_names), path)
        model = text_classifiers.BertClassifier(architecture, tokenizer, config)
    else:
        model = BUILDERS[architecture.name].build(architecture, tokenizer)
    load_tensors(model, path, architecture.name)
    return model


def read_tokenizer(path: Path) -> str:
    """The tokenizer of a checkpoint, of a folder of transformers, or of its own file, as JSON.

    Raises:
        WeightsError: If there is none.
    """
    if path.suffix == CHECKPOINT:
        tokenizer = _read_header(path)[1].get(TOKENIZER)
        if tokenizer is None:
            raise WeightsError(f"Expected a checkpoint of a classifier of sentences, but {path} has no tokenizer.")
        return tokenizer
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"Expected a tokenizer at {file}, but: {one_line(error)}") from error


def _read_header(path: Path) -> tuple[ClassifierArchitecture, Mapping[str, str]]:
    architecture, header = read_header(path, ClassifierArchitecture.from_json)
    if architecture.name not in BUILDERS:
        raise WeightsError(f"Expected a checkpoint of one of {sorted(BUILDERS)}, but {path} is of {architecture.name!r}.")
    if BUILDERS[architecture.name].text != (architecture.vocabulary > 0):
        raise WeightsError(f"Expected {path} to give a `vocabulary` if its model reads sentences, but got {architecture}.")
    return architecture, header


def _architecture(
    spec: ModelConfig, class_names: Sequence[str], role: str, imgsz: int, tokenizer: str | None
) -> ClassifierArchitecture:
    builder = BUILDERS.get(str(spec.model))
    if builder is None:
        raise ConfigError(f"{role}.model: expected one of {sorted(BUILDERS)}, but got {spec.model!r}.")
    if builder.text != (tokenizer is not None):
        wanted = "sentences" if builder.text else "pictures"
        raise ConfigError(f"{role}.model: expected a classifier of the data's kind, but {spec.model} is of {wanted}.")
    if spec.depth is not None and not builder.text:
        raise ConfigError(f"{role}.depth: {spec.model} has one depth only; remove it.")
    return ClassifierArchitecture(
        name=str(spec.model),
        class_names=tuple(class_names),
        imgsz=imgsz,
        width=1.0 if spec.width is None else spec.width,
        depth=spec.depth,
        smoothing=spec.smoothing or 0.0,
        vocabulary=0 if tokenizer is None else vocabulary_size(tokenizer),
    )


def vocabulary_size(tokenizer: str) -> int:
    """Number of tokens of a tokenizer's JSON, as the largest id says it.

    Raises:
        WeightsError: If it is none.
    """
    try:
        content: Any = json.loads(tokenizer)
        ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content.get("added_tokens", ()))]
        return max(int(number) for number in ids) + 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise WeightsError(
            "Expected a tokenizer in the format of tokenizers (tokenizer.json) with a vocabulary."
        ) from error


def _pretrained(
    folder: Path, architecture: ClassifierArchitecture, role: str, tokenizer: str | None
) -> tuple[Classifier, str]:
    """A BERT of transformers from its folder: config.json, model.safetensors and tokenizer.json."""
    if architecture.name != "bert":
        raise ConfigError(f"{role}.weights: expected a file for {architecture.name}, but {folder} is a folder.")
    _check_tokenizer(read_tokenizer(folder), tokenizer, role, folder)
    found, fresh = bert_files.read_folder(folder, len(architecture.class_names), new_head=role == "student")
    if not fresh:
        architecture = replace(architecture, class_names=bert_files.own_names(found.config, architecture.class_names))
    model = text_classifiers.BertClassifier(architecture, tokenizer, found.config)
    _check_length(model, architecture.imgsz, role, folder)
    model.bert.load_state_dict(found.state_dict())
    return model, f"all tensors from {folder}" + (", but for a new last layer" if fresh else "")


def _check_length(model: Classifier, imgsz: int, role: str, path: Path) -> None:
    """Refuse sentences that have more tokens than a model knows places of."""
    if model.most_tokens is not None and imgsz > model.most_tokens:
        raise ConfigError(
            f"train.imgsz: expected {model.most_tokens} tokens at most, as many as the {role} of {path} knows places of, "
            f"but got {imgsz}."
        )


def _check_tokenizer(own: str | None, data: str | None, role: str, path: Path) -> None:
    """Refuse a model that knows other tokens than those that the sentences are made of."""
    if own != data:
        raise WeightsError(
            f"Expected the {role} to read the data's tokens, but {path} was trained on others. Give "
            f"classify.tokenizer={path}, or train both models on the same sentences."
        )
