"""What all classifiers of detkd share: how they are called, and what they were built as."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from detkd.adapters.classifier import Taps

LARGEST = 2**16  # pixels of a side, tokens, or classes
MOST_WORDS = 2**20
LARGEST_MULTIPLE = 8.0


@dataclass(frozen=True)
class ClassifierArchitecture:
    """A classifier without its weights.

    Attributes:
        name: One of ``detkd.models.classifier_files.BUILDERS``.
        class_names: Its classes.
        imgsz: Side of its square input in pixels; of sentences the most tokens.
        width: Channels as a multiple of the family's own.
        depth: Layers as a multiple of the family's own; None for a family that has one depth.
        smoothing: Share of the label that is spread over all classes in training (Szegedy et al. 2016, arXiv:1512.00567).
        vocabulary: Number of tokens that it tells apart; 0 for pictures.
    """

    name: str
    class_names: tuple[str, ...]
    imgsz: int
    width: float = 1.0
    depth: float | None = None
    smoothing: float = 0.0
    vocabulary: int = 0

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ClassifierArchitecture:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If it is no JSON.
            TypeError: If it is no architecture.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict) or not isinstance(fields.get("class_names"), list):
            raise TypeError("expected a mapping with class_names")
        read = cls(**{**fields, "class_names": tuple(fields["class_names"])})
        read.check()
        return read

    def check(self) -> None:
        """Refuse values that nothing can be built with, as somebody else's file may hold them.

        Raises:
            TypeError: If there is one.
        """
        multiples = [self.width, 1.0 if self.depth is None else self.depth]
        if (
            not all(isinstance(text, str) for text in (self.name, *self.class_names))
            or not 0 < len(self.class_names) <= LARGEST
            or not (type(self.imgsz) is int and 0 < self.imgsz <= LARGEST)
            or not (type(self.vocabulary) is int and 0 <= self.vocabulary <= MOST_WORDS)
            or not all(isinstance(value, int | float) and 0 < value <= LARGEST_MULTIPLE for value in multiples)
            or not (isinstance(self.smoothing, int | float) and 0 <= self.smoothing < 1)
        ):
            raise TypeError(f"expected names, sizes and multiples that a classifier can have, got {self}")


class Classifier(nn.Module):
    """Base of the classifiers, called as the engine calls every student.

    Args:
        architecture: What it is built as.
        taps: Where distillation watches it.
        tokenizer: What makes tokens of sentences, as JSON; None for pictures.
    """

    def __init__(self, architecture: ClassifierArchitecture, taps: Taps, tokenizer: str | None = None) -> None:
        super().__init__()
        self.architecture, self.taps, self.tokenizer = architecture, taps, tokenizer
        self.class_names = architecture.class_names

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest sentence that it can read; None where any will do, or it looks at pictures."""
        return None

    def classify(self, inputs: Tensor) -> Tensor:
        """Class logits [B, C] of a batch."""
        raise NotImplementedError

    def forward(self, inputs: Tensor | Sequence[Tensor], labels: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Classify a batch, or learn from it.

        Args:
            inputs: RGB in [0, 1], [B, 3, H, W], or token ids, [B, 1, 1, L]; or a list of B such tensors.
            labels: Indices of the classes, [B]; given in training.

        Returns:
            Class logits before the softmax, [B, C]; with labels the loss by its name.
        """
        batch = inputs if isinstance(inputs, torch.Tensor) else torch.stack(list(inputs))
        logits = self.classify(batch)
        if labels is None:
            return logits
        return {"cross_entropy": F.cross_entropy(logits.float(), labels, label_smoothing=self.architecture.smoothing)}
