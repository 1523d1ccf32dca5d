"""Which pictures an epoch shows, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from detkd.data.annotations import AnnotatedImage

BATCHES_SORTED = 50  # by length at a time: fewer leave more filling, more leave less to chance


def repeat_factors(images: Sequence[AnnotatedImage], threshold: float) -> npt.NDArray[np.float64]:
    """How often an epoch shows each picture, so that rare classes are seen more often, [N].

    A class c in a share f_c of the pictures is repeated r_c = max(1, √(threshold / f_c)) times, and a picture as often as
    the rarest class in it.

    Args:
        images: The pictures.
        threshold: Share of the pictures below which a class is rare.

    Source:
        Gupta, Dollár and Girshick: LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019.
    """
    shown = [np.unique(image.classes[~image.crowd]).tolist() for image in images]
    counts = Counter(label for labels in shown for label in labels)
    factors = {label: max(1.0, (threshold * len(images) / count) ** 0.5) for label, count in counts.items()}
    return np.array([max((factors[label] for label in labels), default=1.0) for labels in shown])


def alike_in_length(
    order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], batch: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Rearrange an epoch so that the samples of a batch are about as long, and little of it is filling, [M].

    Of every 50 batches the samples are sorted by length and cut into batches, which are then shuffled: what a batch
    holds is still left to chance but for its length, and so is when it comes.

    Args:
        order: The samples in random order, [M].
        lengths: Length of each sample, [N].
        batch: Samples in a batch, a divisor of M.
        generator: Shuffles the batches.
    """
    pieces = []
    for start in range(0, len(order), BATCHES_SORTED * batch):
        piece = order[start : start + BATCHES_SORTED * batch]
        alike = piece[np.argsort(lengths[piece], kind="stable")].reshape(-1, batch)
        pieces.append(generator.permutation(alike).ravel())
    return np.concatenate(pieces)


class AddressSampler(Sampler[tuple[int, int]]):
    """Addresses (image, view) of an epoch's pictures, those of one process.

    The order depends on seed and epoch alone. Every batch is full: what the last one lacks is taken from the epoch's
    beginning again. Several processes share each batch, so that together they see what one process would.

    Args:
        factors: How often an epoch shows each picture; a fraction is its chance to be shown once more, [N].
        batch: Pictures in a batch, of all processes together.
        seed: Seed of the order.
        views: Number of views that the epochs go through in turn; None gives each picture shown a view of its own.
        lengths: Length of each sample where batches are filled up to their longest, [N]: batches are then made of samples
            that are about as long, see :func:`alike_in_length`. None leaves the order to chance.
        rank: This process.
        processes: Number of processes, a divisor of `batch`.
    """

    def __init__(
        self,
        factors: npt.NDArray[np.float64],
        batch: int,
        *,
        seed: int,
        views: int | None = None,
        lengths: npt.NDArray[np.int64] | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._factors, self._batch, self._seed, self._views, self._lengths = factors, batch, seed, views, lengths
        self._rank, self._processes = rank, processes
        self._batches = -(-int(np.ceil(np.round(factors.sum(), 6))) // batch)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._batches * self._batch // self._processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        share, addresses = self._batch // self._processes, self._addresses()
        for start in range(self._rank * share, self._batches * self._batch, self._batch):
            yield from addresses[start : start + share]

    def _addresses(self) -> list[tuple[int, int]]:
        """The epoch of all processes."""
        generator = np.random.default_rng((self._seed, self.epoch))
        # One offset for all pictures: the number of them varies by one at most from epoch to epoch.
        ends = np.floor(np.cumsum(self._factors) + generator.random())
        drawn = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0.0).astype(int))
        shown = np.resize(generator.permutation(drawn), self._batches * self._batch)
        if self._lengths is not None:
            shown = alike_in_length(shown, self._lengths, self._batch, generator)
        order = shown.tolist()
        if self._views is None:
            return [(image, self.epoch * len(order) + place) for place, image in enumerate(order)]
        seen: Counter[int] = Counter()
        addresses = []
        for image in order:
            addresses.append((image, (self.epoch + seen[image]) % self._views))
            seen[image] += 1
        return addresses
