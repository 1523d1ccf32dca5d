"""How well the outlines of classes are met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from detkd.data.masks import disc

if TYPE_CHECKING:
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

TOLERANCE = 2  # pixels


def boundary_f1(
    predicted: npt.NDArray[Any], truth: npt.NDArray[Any], count: int, tolerance: int = TOLERANCE
) -> npt.NDArray[np.float64]:
    """Boundary F1 of each class in one picture, [C]; NaN where the class has an outline neither way, 0 if but one way.

    With B the outline of a class in the prediction and T that in the labels, and d the distance in pixels,

        P = |{x ∈ B: d(x, T) ≤ tolerance}| / |B|,   R = |{x ∈ T: d(x, B) ≤ tolerance}| / |T|,   F1 = 2 P R / (P + R).

    A pixel is of the outline if it is of the class, and one of its four neighbours in the picture is known not to be.
    Pixels that are ignored are of no outline, and what borders on them alone is none.

    Args:
        predicted: 0 for the background, 1 + the index of the class, [H, W].
        truth: The same, -1 where ignored, [H, W].
        count: Number C of classes.
        tolerance: Pixels; the paper takes 0.75 % of the picture's diagonal, which is 2.7 pixels of a 256 × 256 picture.

    Source:
        Csurka, Larlus and Perronnin: What is a good evaluation measure for semantic segmentation?, BMVC 2013.
    """
    known = truth >= 0
    near = disc(tolerance).astype(bool)
    scores = np.full(count, np.nan)
    for label in range(count):
        found, real = (_outline((classes == label + 1) & known, known) for classes in (predicted, truth))
        if found.any() and real.any():
            precision = (found & ndimage.binary_dilation(real, near)).sum() / found.sum()
            recall = (real & ndimage.binary_dilation(found, near)).sum() / real.sum()
            scores[label] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        elif found.any() or real.any():
            scores[label] = 0.0
    return scores


def _outline(mask: Mask, known: Mask) -> Mask:
    outside: Mask = ndimage.binary_dilation(known & ~mask)
    return mask & outside
