"""Objects out of what a segmenter says of pixels.

A run's configuration holds the settings: what finds objects is imported only when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy.typing as npt

    Probability = npt.NDArray[np.float32]
    Numbers = npt.NDArray[np.int32]


class InstanceSettings(BaseModel):
    """How objects are told apart; to be chosen on validation pictures only, see :mod:`detkd.evaluation.segmentation`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    method: Literal["components", "watershed"] = Field(
        "watershed",
        description="components takes what hangs together as one object; watershed parts what touches, along boundaries "
        "where the model knows them, else between the middles of objects",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="probability of any class from which a pixel is of an object")
    # Boundaries between objects that touch are thin and rare: students of all sizes say .2 of them sooner than .5.
    boundary_threshold: float = Field(
        0.2, gt=0, lt=1, description="probability of a boundary below which a pixel is inside an object, for watershed"
    )
    min_area: int = Field(8, ge=1, description="pixels of the smallest object")
    min_distance: int = Field(
        5, ge=1, description="pixels between the middles of two objects, for watershed where no boundary is known"
    )


class PixelProbabilities(NamedTuple):
    """What a segmenter says of one picture, in the picture's own pixels.

    Attributes:
        classes: Of the background and each of C classes, [1 + C, H, W].
        boundary: Of a boundary between objects, [H, W]; None where the model does not know.
    """

    classes: Probability
    boundary: Probability | None


class Instance(NamedTuple):
    """An object that was found: its class index, its pixels [H, W], and its score."""

    label: int
    mask: npt.NDArray[np.bool_]
    score: float


def find_instances(found: PixelProbabilities, settings: InstanceSettings) -> list[Instance]:
    """Tell objects apart; each scores the mean probability of its class over its pixels.

    Args:
        found: What a segmenter says.
        settings: How they are told apart.
    """
    from scipy import ndimage

    from detkd.data.masks import components

    foreground = 1 - found.classes[0] >= settings.threshold
    likeliest = found.classes[1:].argmax(0)
    instances: list[Instance] = []
    for label in np.unique(likeliest[foreground]).tolist():
        region = foreground & (likeliest == label)
        if settings.method == "components":
            numbers, _ = components(region)
        else:
            numbers = _watershed(region, found.boundary, settings)
        for number, place in enumerate(ndimage.find_objects(numbers), start=1):
            own = numbers[place] == number
            if own.sum() < settings.min_area:
                continue
            mask = np.zeros(region.shape, np.bool_)
            mask[place] = own
            instances.append(Instance(label, mask, float(found.classes[1 + label][place][own].mean(dtype=np.float64))))
    return instances


def _watershed(region: npt.NDArray[np.bool_], boundary: Probability | None, settings: InstanceSettings) -> Numbers:
    """Number the objects of a region: they grow from their insides until they meet."""
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    from detkd.data.masks import components

    whole, count = components(region)
    height: npt.NDArray[Any]
    if boundary is not None:
        height = boundary
        insides, _ = components(region & (boundary < settings.boundary_threshold))
    else:
        # Without any background there is no distance to it.
        height = -ndimage.distance_transform_edt(region) if not region.all() else np.zeros(region.shape)
        peaks = peak_local_max(-height, min_distance=settings.min_distance, labels=whole, exclude_border=False)
        insides = np.zeros(region.shape, np.int32)
        insides[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    # What is all boundary, as the smallest objects are, grows from itself.
    without = np.setdiff1d(np.arange(1, count + 1), whole[insides > 0])
    markers = np.where(np.isin(whole, without), insides.max() + whole, insides)
    numbers: Numbers = watershed(height, markers, mask=region, connectivity=2)
    return numbers
