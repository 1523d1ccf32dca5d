"""A view of classifiers of pictures and of sentences, by the paths of the modules to watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from detkd.adapters.hooked import Hooked
from detkd.errors import AdapterError
from detkd.hooks import Capture
from detkd.modes import evaluating
from detkd.types import ClassifierOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

PADDING = 0  # id of the token that fills up short sentences


@dataclass(frozen=True)
class Taps:
    """Where a classifier is watched, by the paths of its modules.

    Attributes:
        levels: Modules whose outputs are the levels of features, finest first: maps [B, C, H, W], or for sentences hidden
            states [B, L, C] behind the embedding and behind each layer.
        head: The last linear layer: its input is the embedding, its output the logits.
        input_shape: Shape of one input: (3, H, W) of a picture in RGB, (1, 1, L) of a sentence's token ids.
        attentions: Modules whose second output are attention probabilities [B, H, L, L], one a layer.
    """

    levels: tuple[str, ...]
    head: str
    input_shape: tuple[int, int, int]
    attentions: tuple[str, ...] = ()

    @property
    def reads_tokens(self) -> bool:
        """Whether the inputs are token ids."""
        return self.input_shape[0] == 1

    def example(self, device: torch.device | None = None) -> Tensor:
        """An input that the model takes, a batch of one."""
        dtype = torch.long if self.reads_tokens else torch.float32
        return torch.ones(1, *self.input_shape, dtype=dtype, device=device)


class HookedClassifierAdapter(Hooked):
    """A :class:`detkd.adapters.base.ClassifierAdapter` by hooks, of any classifier.

    Args:
        model: Called with a batch of inputs, or in training with a list of them and labels, it runs the modules of `taps`
            once.
        taps: Where to watch it; None reads ``model.taps``.
        class_names: Names of its classes; None reads ``model.class_names``.

    Raises:
        AdapterError: If it does not say where to watch it, has no such modules, or other names than logits.
    """

    def __init__(self, model: nn.Module, taps: Taps | None = None, class_names: Sequence[str] | None = None) -> None:
        taps = taps or getattr(model, "taps", None)
        names = class_names or getattr(model, "class_names", None)
        if taps is None or names is None:
            raise AdapterError(
                f"Expected {type(model).__name__} to say its `taps` and `class_names`, but it does not. Give both to "
                "the adapter."
            )
        self.model: nn.Module = model
        self.taps: Taps = taps
        self.class_names = tuple(names)
        self.tokenizer: str | None = getattr(model, "tokenizer", None)
        self.attention_layers = len(taps.attentions)
        self.example = taps.example()
        self._capture = Capture(model, ["", *taps.levels, *taps.attentions, taps.head])
        found = self._probe()
        self.feature_channels = tuple(feature.shape[1] for feature in found.features)
        width = taps.input_shape[2]
        self.strides = tuple(1 if taps.reads_tokens else round(width / feature.shape[3]) for feature in found.features)
        self.embedding_size = found.embedding.shape[1]
        if found.logits.shape[1] != len(self.class_names):
            raise AdapterError(
                f"Expected a name for each of the {found.logits.shape[1]} classes of {type(model).__name__}, but got "
                f"{list(self.class_names)}."
            )

    def run(self, images: Tensor) -> None:
        """Run a forward pass that the hooks see."""
        self.model(images)

    def take_outputs(self) -> ClassifierOutputs:
        """Return what the latest forward pass computed, and let go of it."""
        capture, taps = self._capture, self.taps
        features = [_first(capture.output(path)) for path in taps.levels]
        tokens: Tensor | None = None
        hidden: tuple[Tensor, ...] = ()
        if taps.reads_tokens:
            hidden = tuple(features)
            features = [feature.transpose(1, 2)[..., None] for feature in features]
            inputs: Any = capture.inputs("")[0]
            tokens = (torch.stack(list(inputs)) if isinstance(inputs, list | tuple) else inputs).flatten(1) != PADDING
        outputs = ClassifierOutputs(
            features=tuple(features),
            logits=_first(capture.output(taps.head)),
            embedding=capture.inputs(taps.head)[0].flatten(1),
            attentions=tuple(capture.output(path)[1] for path in taps.attentions),
            tokens=tokens,
            hidden=hidden,
        )
        capture.clear()
        return outputs

    def _probe(self) -> ClassifierOutputs:
        """What one example gives; nothing of it stays in the model."""
        device = next((parameter.device for parameter in self.model.parameters()), None)
        with torch.no_grad(), evaluating(self.model), self._capture:
            self.run(self.taps.example(device))
            return self.take_outputs()


def _first(output: Any) -> Tensor:
    """A module's only tensor, or the first of several."""
    return cast("Tensor", output[0] if isinstance(output, tuple) else output)
