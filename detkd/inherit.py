"""Initialisation of a student from a larger model of its own family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from detkd.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def select_weights(student: nn.Module, teacher: nn.Module) -> int:
    """Fill a student with a selection of its teacher's weights.

    Of every tensor that both have under one name, each dimension of the teacher's is thinned evenly to the student's size:
    of 64 channels for 16, every fourth. A concatenation of thinned maps is the thinned concatenation then, so that a layer
    finds the inputs that it was trained on. Of deeper stages the first layers are taken. Batch statistics are copied like
    weights and settle in the first steps.

    Args:
        student: Receives the weights, in place.
        teacher: A trained model of the same family, at least as wide and as deep.

    Returns:
        Number of tensors filled.

    Raises:
        WeightsError: If the two have no tensor in common, or the teacher's is the smaller one.

    Source:
        Xu et al.: Initializing Models with Larger Ones, ICLR 2024, arXiv:2311.18823, with evenly spaced elements.
    """
    own, other = student.state_dict(), teacher.state_dict()
    common = [name for name, value in own.items() if name in other and other[name].ndim == value.ndim]
    if not common:
        raise WeightsError(
            "Expected a teacher of the student's family to inherit from, but they have no tensor of the same name "
            f"(student: {next(iter(own))!r}, teacher: {next(iter(other))!r})."
        )
    flattening, positions = _flattened_regions(student)
    for name in common:
        own[name].copy_(_thin(other[name], own[name].shape, name, positions if name == flattening else 1))
    return len(common)


def _flattened_regions(model: Any) -> tuple[str, int]:
    """The weight whose inputs are a region's features, all positions of each channel, and the number of positions."""
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        return "", 1
    layers = (name for name, layer in heads.box_head.named_modules() if isinstance(layer, nn.Linear))
    return f"roi_heads.box_head.{next(layers, '')}.weight", math.prod(heads.box_roi_pool.output_size)


def _thin(tensor: Tensor, shape: torch.Size, name: str, positions: int) -> Tensor:
    """The evenly spaced elements of each dimension; of the inputs, whole channels of so many positions."""
    if any(wanted > given for wanted, given in zip(shape, tensor.shape, strict=True)):
        raise WeightsError(
            f"Expected a teacher at least as wide as the student to inherit from, but its {name!r} is "
            f"{tuple(tensor.shape)} and the student's {tuple(shape)}."
        )
    for dim, wanted in enumerate(shape):
        given, block = tensor.shape[dim], positions if dim == 1 else 1
        if given != wanted:
            channels = torch.arange(wanted // block, device=tensor.device) * (given // block) // (wanted // block)
            index = channels[:, None] * block + torch.arange(block, device=tensor.device)
            tensor = tensor.index_select(dim, index.flatten())
    return tensor
