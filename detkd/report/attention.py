"""Where a model looks, laid over the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    from detkd.report.gallery import Pixels

SIDE = 400  # pixels of the longer side
OVER = 0.6  # of the colours over the picture


def draw_attention(pixels: Pixels, activity: npt.NDArray[np.float32]) -> Pixels:
    """A picture under the colours of an attention map, dark where it is least and bright where it is most.

    Args:
        pixels: RGB of 8 bits, [H, W, 3].
        activity: Mean square of the features at each position of a level that covers the picture, [H_l, W_l].
    """
    height, width, _ = pixels.shape
    times = SIDE / max(height, width)
    size = max(1, round(width * times)), max(1, round(height * times))
    low, high = float(activity.min()), float(activity.max())
    scaled = (activity - low) / (high - low) if high > low else np.zeros_like(activity)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB").resize(size, Image.Resampling.LANCZOS))
    colours = colormaps["magma"](smooth.clip(0, 1))[:, :, :3] * 255
    return np.asarray(((1 - OVER) * grey + OVER * colours).round(), np.uint8)
