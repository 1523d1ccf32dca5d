"""Channels of a teacher that stand for those of a narrower student of its family.

Evenly spaced ones do unless a layer reads several maps as one: each of them has evenly spaced channels of its own then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from detkd.concatenations import joined_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence


def even(given: int, wanted: int) -> Tensor:
    """Evenly spaced elements: of 64 for 16, every fourth."""
    return torch.arange(wanted) * given // wanted


def chosen_channels(student: nn.Module, teacher: nn.Module) -> dict[tuple[str, int], Tensor]:
    """Elements of a tensor's dimension that are not spaced evenly, by the tensor's name and the dimension.

    Modules of ultralytics: attention splits its channels into heads, and those into queries, keys and values; a CSP block
    joins as many maps as it is deep; the neck joins maps of several layers, which may be capped at different widths. A
    U-Net joins a map of its encoder, which may be as wide as its teacher's, with one of its decoder.

    Args:
        student: The narrower model.
        teacher: The wider one.

    Returns:
        Places in the teacher's tensor, in the order of the student's. Every other dimension takes :func:`even`.
    """
    return _within_blocks(student, teacher) | _behind_concatenations(student, teacher)


def _within_blocks(student: nn.Module, teacher: nn.Module) -> dict[tuple[str, int], Tensor]:
    """Heads of attention, and maps of CSP blocks of a deeper teacher."""
    chosen: dict[tuple[str, int], Tensor] = {}
    others = dict(teacher.named_modules())
    for path, module in student.named_modules():
        own, other, prefix = cast("Any", module), cast("Any", others.get(path)), f"{path}." if path else ""
        if other is None:
            continue
        if hasattr(own, "qkv") and hasattr(own, "num_heads") and hasattr(other, "num_heads"):
            heads = other.num_heads, own.num_heads
            index = _nested(heads, *(_split(one) for one in (other, own)))
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
                maps = torch.arange(count)[:, None] * given + even(given, wanted)
                chosen[f"{prefix}cv2.conv.weight", 1] = maps.flatten()
    return chosen


def _split(attention: Any) -> tuple[int, int, int]:
    """Channels of a head's query, key and value."""
    key = getattr(attention, "key_dim", attention.head_dim)
    return key, key, attention.head_dim


def _nested(heads: tuple[int, int], given: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Evenly spaced heads, and of each evenly spaced channels of every part."""
    return (even(*heads)[:, None] * sum(given) + _of_each(given, wanted)).flatten()


def _behind_concatenations(student: nn.Module, teacher: nn.Module) -> dict[tuple[str, int], Tensor]:
    """Inputs of convolutions behind a concatenation, as its parts may be thinned by different ratios."""
    wanted, given = joined_inputs(student), joined_inputs(teacher)
    return {
        (name, 1): _of_each(given[name], parts) for name, parts in wanted.items() if len(parts) == len(given.get(name, ()))
    }


def _of_each(given: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Evenly spaced channels of every part."""
    starts = [sum(given[:place]) for place in range(len(given))]
    return torch.cat([start + even(size, less) for start, size, less in zip(starts, given, wanted, strict=True)])
