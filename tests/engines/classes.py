"""Tiny data sets and teachers of classifiers, for tests that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from detkd.config import ClassificationConfig, parse_config

if TYPE_CHECKING:
    import torch

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
WORDS = {"bad": "dull boring awful", "good": "great lovely superb"}
TINY = {"model": "cnn", "width": 0.25}
TINY_TEXT = {"model": "transformer", "width": 0.25, "depth": 0.5}


def write_pictures(root: Path, counts: dict[str, int], side: int = 32) -> Path:
    """Noisy pictures of three colours, as many of each as `counts` says of a split."""
    noise = np.random.default_rng(0)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + noise.normal(0, 60, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def write_sentences(root: Path, counts: dict[str, int]) -> Path:
    """Sentences of which one word says the label."""
    chance = np.random.default_rng(0)
    fillers = ["the", "film", "was", "quite", "a", "story", "with", "some", "people", "in", "it"]
    for split, count in counts.items():
        lines = ["sentence\tlabel"]
        for index in range(count):
            label = ("bad", "good")[index % 2]
            words = [*chance.choice(fillers, 2 + index % 5), chance.choice(WORDS[label].split())]
            lines.append(f"{' '.join(chance.permutation(words))}\t{label}")
        (root / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return root


def configure_classes(data: Path, /, **changes: Any) -> ClassificationConfig:
    """A run of two epochs on pictures; `changes` replace whole sections."""
    tree = {
        "name": "run",
        "data": str(data),
        "student": TINY,
        "distill": None,
        "train": {"epochs": 2, "imgsz": 32, "batch": 8},
        "optim": {"lr": 0.01, "warmup_epochs": 0, "schedule": "constant"},
        "evaluate": ["test"],
    }
    config = parse_config({**tree, **changes})
    assert isinstance(config, ClassificationConfig)
    return config


def configure_text(data: Path, /, **changes: Any) -> ClassificationConfig:
    """The same on sentences."""
    return configure_classes(data, **{"student": TINY_TEXT, "classify": {"vocabulary": 200}, **changes})


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint."""
    from safetensors.torch import load_file

    return load_file(path)
