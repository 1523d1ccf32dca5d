"""What a segmenter says of whole pictures of any size."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkd.data.augment import GREY
from detkd.data.masks import PixelLabels
from detkd.data.pixel_augment import PixelAugmentation
from detkd.errors import ArgumentError
from detkd.evaluation.instances import PixelProbabilities
from detkd.modes import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from detkd.types import Mode

    Pixels = npt.NDArray[np.uint8]

STEP = 0.75  # from a tile to the next, of its side; the rest of it overlaps


def predict_probabilities(
    model: nn.Module, pictures: Iterable[Pixels], *, imgsz: int, mode: Mode = "fit", batch: int = 8
) -> Iterator[PixelProbabilities]:
    """Run a segmenter over pictures, and give what it says in each picture's own pixels.

    Args:
        model: Called with RGB in [0, 1], [B, 3, S, S], it returns logits [B, K, S, S]: of one class one for a sigmoid, of C
            classes 1 + C for a softmax, background first; behind them one for a sigmoid where ``model.boundary``. It says
            ``class_names``. The mode of each of its modules is restored.
        pictures: RGB, [H, W, 3].
        imgsz: Side S of the network's input in pixels.
        mode: ``fit`` scales each picture to it, and what is said back; ``tiles`` keeps the scale, and joins squares that
            overlap by a quarter: each counts most in its middle.
        batch: Squares at a time.

    Raises:
        ArgumentError: If the logits are not as many as the model's classes ask for.
    """
    queue = iter(pictures)
    # A picture of several tiles is a batch of its own.
    while chunk := list(islice(queue, batch if mode == "fit" else 1)):
        frames = [_Fitted(pixels, imgsz) if mode == "fit" else _Tiled(pixels, imgsz) for pixels in chunk]
        squares = np.stack([square for frame in frames for square in frame.squares])
        outputs = iter(_run(model, squares, batch))
        for frame in frames:
            joined = frame.join(list(islice(outputs, len(frame.squares)))).cpu().numpy()
            classes = joined[:-1] if _knows_boundary(model) else joined
            yield PixelProbabilities(classes, joined[-1] if _knows_boundary(model) else None)


class _Fitted:
    """A picture scaled to a square, as it is in training."""

    def __init__(self, pixels: Pixels, imgsz: int) -> None:
        self._size = pixels.shape[:2]
        blank = np.zeros(self._size, np.int16)
        result = PixelAugmentation([], imgsz)(pixels, PixelLabels(blank, blank.astype(np.int32), np.zeros(0, np.int64)))
        self._inside = int((result.classes[:, 0] >= 0).sum()), int((result.classes[0] >= 0).sum())
        self.squares = [result.pixels]

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        height, width = self._inside
        return F.interpolate(outputs[0][None, :, :height, :width], self._size, mode="bilinear")[0]


class _Tiled:
    """A picture cut into squares that overlap."""

    def __init__(self, pixels: Pixels, imgsz: int) -> None:
        self._size, self._side = pixels.shape[:2], imgsz
        missing = [(0, max(imgsz - side, 0)) for side in self._size]
        padded = np.pad(pixels, [*missing, (0, 0)], constant_values=GREY)
        rows, columns = (_starts(side, imgsz) for side in padded.shape[:2])
        self._padded = padded.shape[:2]
        self._corners = [(row, column) for row in rows for column in columns]
        self.squares = [padded[row : row + imgsz, column : column + imgsz] for row, column in self._corners]

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        side = self._side
        ramp = torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1)).to(outputs[0])
        weight = ramp * ramp[:, None]
        total = outputs[0].new_zeros((len(outputs[0]), *self._padded))
        weights = outputs[0].new_zeros(self._padded)
        for (row, column), output in zip(self._corners, outputs, strict=True):
            total[:, row : row + side, column : column + side] += weight * output
            weights[row : row + side, column : column + side] += weight
        height, width = self._size
        return (total / weights)[:, :height, :width]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along a side of a picture, evenly spaced from end to end."""
    count = int(np.ceil((length - side) / (STEP * side))) + 1
    return [round(start) for start in np.linspace(0, length - side, count).tolist()]


def _run(model: nn.Module, squares: Pixels, batch: int) -> Iterator[Tensor]:
    """What the model says of each square: probabilities of background, classes and boundary, [1 + C (+ 1), S, S]."""
    device = next(model.parameters()).device
    images = torch.from_numpy(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)))
    for part in images.split(batch):
        # Inference mode would leave tensors in the model's caches that cannot be trained with.
        with evaluating(model), torch.no_grad():
            probabilities = _probabilities(model, model(part.to(device).float() / 255).float())
        yield from probabilities


def _probabilities(model: Any, logits: Tensor) -> Tensor:
    count = len(model.class_names)
    channels = (1 if count == 1 else 1 + count) + _knows_boundary(model)
    if logits.shape[1] != channels:
        raise ArgumentError(
            f"Expected {channels} logits of classes {list(model.class_names)}, boundary {_knows_boundary(model)}, "
            f"but the model gave {logits.shape[1]}."
        )
    if count == 1:
        foreground = logits[:, :1].sigmoid()
        classes = torch.cat((1 - foreground, foreground), 1)
    else:
        classes = logits[:, : 1 + count].softmax(1)
    return torch.cat((classes, logits[:, -1:].sigmoid()), 1) if _knows_boundary(model) else classes


def _knows_boundary(model: Any) -> bool:
    return bool(model.boundary)
