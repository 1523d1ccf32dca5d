"""Structured pruning: the channels of a trained model that say least are cut away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from detkd.adapters.unet import is_segmenter
from detkd.errors import ConfigError, DetkdError
from detkd.models.image_classifiers import PictureClassifier

if TYPE_CHECKING:
    from torch import Tensor, nn


def prune(model: nn.Module, share: float) -> str:
    """Cut a share of the channels of each group of layers that must agree on them, the smallest in the L2 norm.

    The model then computes with smaller tensors, without being trained again: what it says changes, the more the larger the
    share. Its last layer keeps its classes. It is changed in place and is left in evaluation mode.

    Args:
        model: A classifier of pictures or a U-Net.
        share: Of the channels, between 0 and 1; the multiplications fall with about the square of what is left.

    Returns:
        A sentence on what was cut.

    Raises:
        ConfigError: If the model is of another kind: heads of detectors split and share channels in ways of their own.
        DetkdError: If torch-pruning is not installed.

    Source:
        Fang et al.: DepGraph: Towards Any Structural Pruning, CVPR 2023, arXiv:2301.12900, by the library torch-pruning.
    """
    library = import_pruning()
    example, head = _ends(model)
    before = _count(model)
    model.eval().requires_grad_(True)  # the layers are found by following gradients
    pruner = library.pruner.MagnitudePruner(
        model,
        example.to(next(model.parameters()).device),
        importance=library.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=list(head.modules()),
    )
    pruner.step()
    return f"{_count(model)} of {before} parameters left when {share:.0%} of the channels were cut"


def import_pruning() -> Any:
    """Import torch-pruning.

    Raises:
        DetkdError: If it is not installed.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise DetkdError("distill.teacher.prune needs torch-pruning: pip install 'detkd[prune]'.") from error
    return torch_pruning


def _ends(model: nn.Module) -> tuple[Tensor, nn.Module]:
    """An input of a model, and the layers that say its classes."""
    if isinstance(model, PictureClassifier):
        return model.taps.example(), model.get_submodule(model.taps.head)
    if is_segmenter(model):
        segmenter = cast("Any", model)
        return torch.zeros(1, 3, 2 * segmenter.stride, 2 * segmenter.stride), segmenter.network.segmentation_head
    raise ConfigError(
        f"distill.teacher.prune: expected a classifier of pictures or a U-Net, but {type(model).__name__} is neither. "
        "Leave it out."
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
