"""Initialisation of a student from a larger model of its own family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn


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
    for name in common:
        own[name].copy_(_thin(other[name], own[name].shape, name))
    return len(common)


def _thin(tensor: Tensor, shape: torch.Size, name: str) -> Tensor:
    if any(wanted > given for wanted, given in zip(shape, tensor.shape, strict=True)):
        raise WeightsError(
            f"Expected a teacher at least as wide as the student to inherit from, but its {name!r} is "
            f"{tuple(tensor.shape)} and the student's {tuple(shape)}."
        )
    for dim, wanted in enumerate(shape):
        given = tensor.shape[dim]
        if given != wanted:
            tensor = tensor.index_select(dim, torch.arange(wanted, device=tensor.device) * given // wanted)
    return tensor
