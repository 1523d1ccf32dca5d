"""Initialisation of a student from a larger model of its own family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from detkd.channels import chosen_channels, even
from detkd.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@torch.no_grad()
def select_weights(
    student: nn.Module, teacher: nn.Module, classes: tuple[Sequence[str], Sequence[str]] | None = None
) -> int:
    """Fill a student with a selection of its teacher's weights.

    Of every tensor that both have under one name, each dimension of the teacher's is thinned evenly to the student's size:
    of 64 channels for 16, every fourth. Where a layer of a YOLO reads several maps as one, each of them is thinned so, for
    their widths may be capped: it finds the inputs that it was trained on. Of deeper stages the first layers are taken, and
    of what they are joined with the first maps; of attention whole heads. Blocks that are of another kind in the teacher
    are left as they are. Batch statistics are copied like weights and settle in the first steps.

    Args:
        student: Receives the weights, in place.
        teacher: A trained model of the same family, at least as wide and as deep.
        classes: Names of the classes of both, the student's first, where they may differ: what says other classes, or the
            same in another order, is left as it is.

    Returns:
        Number of tensors filled.

    Raises:
        WeightsError: If the two have no tensor in common, or the teacher's is the smaller one.

    Source:
        Xu et al.: Initializing Models with Larger Ones, ICLR 2024, arXiv:2311.18823, with evenly spaced elements.
    """
    own, other = student.state_dict(), teacher.state_dict()
    foreign = _blocks_of_other_kinds(student, teacher)
    common = [
        name
        for name, value in own.items()
        if name in other and other[name].ndim == value.ndim and not name.startswith(foreign)
    ]
    if not common:
        raise WeightsError(
            "Expected a teacher of the student's family to inherit from, but they have no tensor of the same name "
            f"(student: {next(iter(own))!r}, teacher: {next(iter(other))!r})."
        )
    if classes is not None and tuple(classes[0]) != tuple(classes[1]):
        counts = [(per * len(classes[0]) + more, per * len(classes[1]) + more) for per, more in _OF_CLASSES]
        common = [name for name in common if (_rows(own[name]), _rows(other[name])) not in counts]
    chosen = chosen_channels(student, teacher)
    flattening, positions = _flattened_regions(student)
    for name in common:
        own[name].copy_(_thin(other[name], own[name].shape, name, positions if name == flattening else 1, chosen))
    return len(common)


# Rows of a layer that says classes: one for each, with the background one more, or a box for each of these.
_OF_CLASSES = ((1, 0), (1, 1), (4, 4))


def _blocks_of_other_kinds(student: nn.Module, teacher: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of tensors that share a name alone: a large YOLO11 has other blocks than a small one."""
    others = dict(teacher.named_modules())
    pairs = ((path, own, others[path]) for path, own in student.named_modules() if path and path in others)
    return tuple(
        f"{path}."
        for path, own, other in pairs
        # Layers without layers of their own may differ in kind and mean the same: a batch norm, and a frozen one.
        if next(own.children(), None) is not None and not isinstance(own, type(other)) and not isinstance(other, type(own))
    )


def _rows(tensor: Tensor) -> int:
    return len(tensor) if tensor.ndim else 0


def _flattened_regions(model: Any) -> tuple[str, int]:
    """The weight whose inputs are a region's features, all positions of each channel, and the number of positions."""
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        return "", 1
    layers = (name for name, layer in heads.box_head.named_modules() if isinstance(layer, nn.Linear))
    return f"roi_heads.box_head.{next(layers, '')}.weight", math.prod(heads.box_roi_pool.output_size)


def _thin(tensor: Tensor, shape: torch.Size, name: str, positions: int, chosen: Mapping[tuple[str, int], Tensor]) -> Tensor:
    """The chosen elements of each dimension, else evenly spaced ones; of inputs, whole channels of so many positions."""
    if any(wanted > given for wanted, given in zip(shape, tensor.shape, strict=True)):
        raise WeightsError(
            f"Expected a teacher at least as wide as the student to inherit from, but its {name!r} is "
            f"{tuple(tensor.shape)} and the student's {tuple(shape)}."
        )
    for dim, wanted in enumerate(shape):
        given, block = tensor.shape[dim], positions if dim == 1 else 1
        if (name, dim) in chosen:
            tensor = tensor.index_select(dim, chosen[name, dim].to(tensor.device))
        elif given != wanted:
            channels = even(given // block, wanted // block).to(tensor.device)
            index = channels[:, None] * block + torch.arange(block, device=tensor.device)
            tensor = tensor.index_select(dim, index.flatten())
    return tensor
