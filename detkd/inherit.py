"""Initialisation of a student from a larger model of its own family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

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
    of 64 channels for 16, every fourth. A concatenation of thinned maps is the thinned concatenation then, so that a layer
    finds the inputs that it was trained on. Of deeper stages the first layers are taken, and of what they are joined with
    the first maps; of attention whole heads. Batch statistics are copied like weights and settle in the first steps.

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
    common = [name for name, value in own.items() if name in other and other[name].ndim == value.ndim]
    if not common:
        raise WeightsError(
            "Expected a teacher of the student's family to inherit from, but they have no tensor of the same name "
            f"(student: {next(iter(own))!r}, teacher: {next(iter(other))!r})."
        )
    if classes is not None and tuple(classes[0]) != tuple(classes[1]):
        counts = [(per * len(classes[0]) + more, per * len(classes[1]) + more) for per, more in _OF_CLASSES]
        common = [name for name in common if (_rows(own[name]), _rows(other[name])) not in counts]
    chosen = _chosen(student, teacher)
    flattening, positions = _flattened_regions(student)
    for name in common:
        own[name].copy_(_thin(other[name], own[name].shape, name, positions if name == flattening else 1, chosen))
    return len(common)


# Rows of a layer that says classes: one for each, with the background one more, or a box for each of these.
_OF_CLASSES = ((1, 0), (1, 1), (4, 4))


def _rows(tensor: Tensor) -> int:
    return len(tensor) if tensor.ndim else 0


def _chosen(student: nn.Module, teacher: nn.Module) -> dict[tuple[str, int], Tensor]:
    """Elements of a tensor's dimension that are not spaced evenly, by the tensor's name and the dimension.

    Modules of ultralytics: attention splits its channels into heads, and those into queries, keys and values; a CSP block
    joins as many maps as it is deep.
    """
    chosen: dict[tuple[str, int], Tensor] = {}
    others = dict(teacher.named_modules())
    for path, module in student.named_modules():
        own, other, prefix = cast("Any", module), cast("Any", others.get(path)), f"{path}." if path else ""
        if other is None:
            continue
        if hasattr(own, "qkv") and hasattr(own, "num_heads") and hasattr(other, "num_heads"):
            heads = other.num_heads, own.num_heads
            index = _nested(heads, *(_parts(one) for one in (other, own)))
            values = _nested(heads, (other.head_dim,), (own.head_dim,))
            for layer, rows in (("qkv", index), ("pe", values)):
                names = [name for name, _ in own.named_parameters() if name.startswith(f"{layer}.")]
                names += [name for name, _ in own.named_buffers() if name.startswith(f"{layer}.")]
                chosen |= {(prefix + name, 0): rows for name in names}
            chosen[f"{prefix}proj.conv.weight", 1] = values
        elif isinstance(getattr(own, "m", None), nn.ModuleList) and hasattr(own, "cv1") and hasattr(own, "cv2"):
            given, wanted = (getattr(one, "c", one.cv1.conv.out_channels) for one in (other, own))
            deeper, count = other.cv2.conv.in_channels // given, own.cv2.conv.in_channels // wanted
            if count < deeper:
                maps = torch.arange(count)[:, None] * given + _even(given, wanted)
                chosen[f"{prefix}cv2.conv.weight", 1] = maps.flatten()
    return chosen


def _parts(attention: Any) -> tuple[int, int, int]:
    """Channels of a head's query, key and value."""
    key = getattr(attention, "key_dim", attention.head_dim)
    return key, key, attention.head_dim


def _nested(heads: tuple[int, int], given: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Evenly spaced heads, and of each evenly spaced channels of every part."""
    starts = [sum(given[:place]) for place in range(len(given))]
    parts = [start + _even(size, less) for start, size, less in zip(starts, given, wanted, strict=True)]
    return (_even(*heads)[:, None] * sum(given) + torch.cat(parts)).flatten()


def _even(given: int, wanted: int) -> Tensor:
    return torch.arange(wanted) * given // wanted


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
            channels = _even(given // block, wanted // block).to(tensor.device)
            index = channels[:, None] * block + torch.arange(block, device=tensor.device)
            tensor = tensor.index_select(dim, index.flatten())
    return tensor
