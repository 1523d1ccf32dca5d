"""Training samples that are set apart from training, for a balance that looks ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detkd.errors import ConfigError
from detkd.seeds import seed_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from detkd.engines.lightning.task import AddressedPictures, TrainingTask


class HeldOut:
    """A share of the labelled training samples, drawn by the seed alone, and batches of them.

    Args:
        task: What is trained for.
        pictures: The training samples.
        share: Share of the labelled ones that is set apart.
        batch: Samples in a batch of one process.
        seed: Seed of the run.
        views: Number of views that a cache has of each sample; None draws new ones.
        rank: Of the process.

    Attributes:
        samples: Indices of those set apart.

    Raises:
        ConfigError: If that leaves nothing to set apart, or to train on.
    """

    def __init__(
        self,
        task: TrainingTask,
        pictures: AddressedPictures,
        share: float,
        *,
        batch: int,
        seed: int,
        views: int | None = None,
        rank: int = 0,
    ) -> None:
        self._task, self._pictures, self._batch = task, pictures, batch
        self._seed, self._views, self._rank = seed, views, rank
        labelled = np.flatnonzero(task.labelled(pictures)).tolist()
        order = sorted(labelled, key=lambda sample: seed_of(f"{seed} held out {sample}"))
        self.samples = sorted(order[: max(1, round(share * len(labelled)))])
        if len(labelled) < 2:
            raise ConfigError(
                f"distill.balance: expected two labelled training samples or more for meta, one of them to set apart, but "
                f"there are {len(labelled)}."
            )

    def without(self, factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Show the samples never, and the others so much oftener that an epoch keeps its length.

        Args:
            factors: How often an epoch shows each sample, [N].
        """
        kept = factors.copy()
        kept[self.samples] = 0.0
        rest: npt.NDArray[np.float64] = kept * (factors.sum() / kept.sum())
        return rest

    def draw(self, step: int) -> Any:
        """The batch of a step of the run, augmented as in training; each process has its own."""
        chance = np.random.default_rng((self._seed, step, self._rank))
        chosen = chance.choice(self.samples, min(self._batch, len(self.samples)), replace=False).tolist()
        view = step if self._views is None else step % self._views
        return self._task.gather([self._pictures[sample, view] for sample in chosen])
