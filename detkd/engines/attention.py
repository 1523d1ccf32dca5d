"""Where student and teacher look: how active their features are, on levels that meet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from detkd.adapters.families import make_any_adapter
from detkd.errors import AdapterError
from detkd.matching import match_levels
from detkd.modes import evaluating
from detkd.report.attention import draw_attention
from detkd.report.gallery import Attention, Gallery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from detkd.engines.tasks import Judged

LEVELS = 3  # that are drawn, from the finest to the coarsest
PADDING = 114 / 255  # grey, as behind a picture that does not fill the square


@torch.no_grad()
def features_of(model: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """The feature maps of a model of any family on its inputs, finest first; its modes are restored."""
    adapter = make_any_adapter(model)
    adapter.attach()
    try:
        with evaluating(model):
            adapter.run(inputs)
        return adapter.take_outputs().features
    finally:
        adapter.detach()


def with_attention(gallery: Gallery, pictures: Sequence[npt.NDArray[np.uint8]], models: Mapping[str, Judged]) -> Gallery:
    """A gallery of pictures with the attention maps of the student, and of the first teacher where its levels meet.

    An attention map is the mean of the squared features over the channels, as in :func:`detkd.losses.at`.

    Args:
        gallery: Of the pictures, in their order.
        pictures: RGB of 8 bits, [H, W, 3] each.
        models: By their role, ``student`` among them.
    """
    levels, strides = _levels(models), make_any_adapter(models["student"].model).strides
    shown = []
    for entry, pixels in zip(gallery.pictures, pictures, strict=True):
        maps = {role: _activity(models[role], pixels) for role in levels}
        attention = tuple(
            Attention(
                f"stride {strides[levels['student'][place]]}",
                {role: draw_attention(pixels, maps[role][own[place]].numpy()) for role, own in levels.items()},
            )
            for place in range(len(levels["student"]))
        )
        shown.append(replace(entry, attention=attention))
    return replace(gallery, pictures=tuple(shown))


def _levels(models: Mapping[str, Judged]) -> dict[str, list[int]]:
    """Indices of the levels to draw of each role, which lie over each other; the teacher first."""
    student = models["student"]
    strides = make_any_adapter(student.model).strides
    role = next((role for role in models if role != "student"), None)
    if role is not None:
        teacher = models[role]
        try:
            pairs = match_levels(strides, make_any_adapter(teacher.model).strides, teacher.imgsz / student.imgsz)
        except AdapterError:  # a term on what both detect needs no common level
            pass
        else:
            kept = _spread(pairs)
            return {role: [level for _, level in kept], "student": [level for level, _ in kept]}
    return {"student": [level for level, _ in _spread([(level, level) for level in range(len(strides))])]}


def _spread(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """At most three of the levels, from the first to the last."""
    if len(pairs) <= LEVELS:
        return pairs
    return [pairs[round(place * (len(pairs) - 1) / (LEVELS - 1))] for place in range(LEVELS)]


def _activity(judged: Judged, pixels: npt.NDArray[np.uint8]) -> list[Tensor]:
    """The attention map of each level, cut to where the picture is.

    It is scaled to the model's input, as in training, on a square that all levels divide: ultralytics rounds sizes up, too.
    """
    coarsest = max(make_any_adapter(judged.model).strides)
    side = -(-judged.imgsz // coarsest) * coarsest
    picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    times = judged.imgsz / max(pixels.shape[:2])
    height, width = (max(1, round(length * times)) for length in pixels.shape[:2])
    scaled = F.interpolate(picture, (height, width), mode="bilinear", antialias=times < 1)
    square = F.pad(scaled, (0, side - width, 0, side - height), value=PADDING)
    maps = [feature[0].float().square().mean(0) for feature in features_of(judged.model, square)]
    return [one[: -(-len(one) * height // side), : -(-one.shape[1] * width // side)] for one in maps]
