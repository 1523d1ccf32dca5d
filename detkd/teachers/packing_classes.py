"""A classifier's outputs as the few float16 tensors that a cache keeps, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detkd.teachers.packing import half, unpack_maps
from detkd.types import ClassifierOutputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from detkd.teachers.packing import Kept


@dataclass(frozen=True)
class ClassFrame:
    """What is the same for every picture of a size, or sentence of a length; see :class:`detkd.teachers.packing.Frame`.

    Attributes:
        features: Channels, height and width of each level.
        attentions: Heads and tokens, twice, of the attention of each layer.
    """

    features: tuple[torch.Size, ...]
    attentions: tuple[torch.Size, ...] = ()

    @classmethod
    def of(cls, outputs: ClassifierOutputs) -> ClassFrame:
        """The frame of any outputs for pictures of that size."""
        shapes = ([tensor.shape[1:] for tensor in tensors] for tensors in (outputs.features, outputs.attentions))
        return cls(*map(tuple, shapes))

    def to(self, device: torch.device) -> ClassFrame:
        """The frame on a device: it lies on none."""
        del device
        return self

    def pack(
        self, outputs: ClassifierOutputs, kept: Kept, *, like: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The tensors to keep, [B, ...] of float16 each: always the logits, and of the others those that are asked for.

        Args:
            outputs: Of one batch.
            kept: What to keep.
            like: Tensors of the same pictures packed before; of classifiers always the same ones are kept.
        """
        del like
        tensors = {"logits": outputs.logits}
        if kept.embedding:
            tensors["embedding"] = outputs.embedding
        tensors |= {f"features.{level}": outputs.features[level] for level in kept.levels}
        tensors |= {f"attentions.{layer}": outputs.attentions[layer] for layer in kept.attentions}
        return {name: half(tensor) for name, tensor in tensors.items()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> ClassifierOutputs:
        """Outputs in float32 from what :meth:`pack` kept; an embedding of no numbers if it was not kept."""
        values = {name: tensor.float() for name, tensor in tensors.items()}
        logits = values["logits"]
        return ClassifierOutputs(
            features=unpack_maps("features", values, self.features, len(logits)),
            logits=logits,
            embedding=values.get("embedding", logits[:, :0]),
            attentions=unpack_maps("attentions", values, self.attentions, len(logits)),
        )


def cut_to(length: int, outputs: ClassifierOutputs) -> ClassifierOutputs:
    """The outputs for sentences that were filled up to `length` tokens, of those for more: padding changes nothing else."""
    return replace(
        outputs,
        features=tuple(feature[:, :, :length] for feature in outputs.features),
        attentions=tuple(attention[..., :length, :length] for attention in outputs.attentions),
    )
